"""Test `observers.Mine` with the conformance suite of observers; add tests of what is particular to yours."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mine import Mine

from pggan_kit.testing import ObserverSuite


class TestMine(ObserverSuite):
    bad_arguments = ({"digits": -1}, {"digits": 13})

    def make(self) -> Mine:
        return Mine()


def test_each_tick_writes_a_row(tmp_path: Path) -> None:
    stage: Any = SimpleNamespace(size="4x4")
    run: Any = SimpleNamespace(directory=tmp_path, resumed=False, state=SimpleNamespace(images=0))
    observer = Mine(digits=1)
    observer.before_run(run)
    for images in (8, 16):
        run.state.images = images
        observer.after_tick(run, stage, {"Loss/generator": 0.24, "Progress/alpha": 1.0})
    rows = [{"images": images, "size": "4x4", "Loss/generator": 0.2} for images in (8, 16)]
    assert observer.rows.read() == rows
