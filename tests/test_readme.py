"""What the README says is there, is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.paths import ROOT

from pggan_kit.api.train import train
from pggan_kit.cli import main
from pggan_kit.plugin_host.loading import load

README = (ROOT / "README.md").read_text()


def test_its_table_of_parts_is_complete() -> None:
    told = re.findall(r"^\| `(\w+\.\w+)` \| .+ \| .+ \|$", README, re.MULTILINE)
    shipped = [selector for selector, row in load().rows.items() if row.plugin.origin.startswith("pggan_kit ")]
    assert sorted(told) == sorted(shipped)


def test_its_commands_exist() -> None:
    told = set(re.findall(r"pggan-kit (\w+)", README))
    assert told
    assert told <= set(main.commands)


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE)) <= targets


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_its_plugin_trains(block: str, tmp_path: Path, tiny: object, stub: str) -> None:
    plugin = tmp_path / "cosine.py"
    plugin.write_text(block)
    config = tiny("train.switch = @switches.MyCosine()")  # type: ignore[operator]
    run = train(config, plugins=[stub, plugin])
    assert [alpha for alpha in run.alpha.values()] == [1.0] * 3


@pytest.mark.parametrize("block", re.findall(r"```gin\n(.*?)```", README, re.DOTALL))
def test_its_config_trains(block: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.gin"
    config.write_text(block.replace("include '", f"include '{ROOT}/experiments/"))
    short = ["schedule.fade_images = '1 steps'", "schedule.stable_images = '1 steps'"]
    assert train(config, short, run_dir=tmp_path / "run").state.steps == 5
