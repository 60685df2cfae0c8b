"""The first start of a sweep replaces nothing, and one that was killed can begin again. Needs no Optuna."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pggan_kit.errors import RunError
from pggan_kit.runs.targets import SWEEP, require_unused_folder

Sweep = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggan_kit.sweeps.plan_reading.import_optuna", lambda: None)


@pytest.mark.parametrize("names", [["base.gin", "config.gin"], ["runs"], ["trials.csv"], ["plan.json"]])
def test_a_first_start_replaces_no_files(names: list[str], sweep: Sweep) -> None:
    Path("out").mkdir()
    for name in names:
        Path("out", name).write_text("# mine, with comments")
    holds = f"holds {', '.join(names)}, which a new sweep would"
    with pytest.raises(RunError, match=rf"--out out has no sweep\.json, and {holds}"):
        sweep()
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == dict.fromkeys(
        names, "# mine, with comments"
    )


def test_a_first_start_that_was_killed_may_begin_again(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(Exception): ...

    def be_killed(*arguments: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("pggan_kit.sweeps.plan.write_plan_file", be_killed)
        with pytest.raises(KilledError):
            sweep()
    assert {path.name for path in Path("out").iterdir()} == {"base.gin", "config.gin", "locks", "logs"}
    require_unused_folder("--out", Path("out"), SWEEP)
