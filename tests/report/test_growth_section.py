"""The section of a report about when the networks of an ablation's runs grew."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pggan_kit.report.ablation_record import AblationRecord
from pggan_kit.report.growth_section import growth_section


def make_record(runs: dict[tuple[str, int], dict[int, int]], planned: dict[str, list[int]]) -> AblationRecord:
    """Return an ablation whose runs began their stages, by height, at these images."""
    records: dict[tuple[str, int], Any] = {}
    for (name, seed), starts in runs.items():
        stages = [SimpleNamespace(height=height, start=start) for height, start in starts.items()]
        schedule = {"stages": [{"height": height} for height in planned[name]]}
        records[name, seed] = SimpleNamespace(stages=stages, about={"schedule": schedule})
    plan = {"variants": {name: [] for name in planned}, "primary": "FID"}
    return AblationRecord("made up", Path("made_up"), plan, [], "", records)


def test_a_switch_that_decides_by_data_shows_when_it_grew() -> None:
    sizes = [7, 14, 28]
    record = make_record(
        {
            ("linear", 0): {7: 0, 14: 320, 28: 960},
            ("linear", 1): {7: 0, 14: 320, 28: 960},
            ("early", 0): {7: 0, 14: 192, 28: 352},
            ("early", 1): {7: 0, 14: 320},
            ("never", 0): {7: 0},
            ("whole", 0): {28: 0},
        },
        {"linear": sizes, "early": sizes, "never": sizes, "whole": [28]},
    )
    (table,) = growth_section(record).tables
    assert table.head == ["variant", "runs", "14 px", "28 px"]
    assert table.rows == [
        ["linear", 2, 320, 960],
        ["early", 2, "192 to 320", "352; 1 never"],
        ["never", 1, "never", "never"],
        ["whole", 1, None, 0],
    ]


def test_runs_that_grew_alike_have_no_such_table() -> None:
    starts = {7: 0, 14: 320}
    assert not growth_section(make_record({("a", 0): starts, ("b", 0): starts}, {"a": [7, 14], "b": [7, 14]})).tables
    assert not growth_section(make_record({}, {"a": [7, 14]})).tables
