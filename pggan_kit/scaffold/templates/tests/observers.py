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
    for images in (8, 16):
        run: Any = SimpleNamespace(directory=tmp_path, state=SimpleNamespace(images=images))
        Mine(digits=1).after_tick(run, stage, {"Loss/generator": 0.2, "Loss/discriminator": 2.0, "Progress/alpha": 1})
    assert (tmp_path / "losses.csv").read_text() == "8,4x4,2.0,0.2\n16,4x4,2.0,0.2\n"
