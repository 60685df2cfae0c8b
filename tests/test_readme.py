"""What the README and its two lists, of parts and of commands, say is there, is there; and nothing is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from helpers.paths import ROOT

from pggan_kit.api.train import train
from pggan_kit.cli import main
from pggan_kit.plugin_host.loading import load_plugins

README = (ROOT / "README.md").read_text()
PARTS = (ROOT / "docs/parts.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()


def list_commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield what people may run, by its words: `bench CONFIG` is `bench run CONFIG`, which nobody needs to write."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from list_commands(command, (*words, name))
        elif name == "run" and words:
            yield words, command
        elif not command.hidden:
            yield (*words, name), command


def test_table_of_parts_is_complete() -> None:
    listed = re.findall(r"^\| `(\w+\.\w+)` \| .+ \| .+ \|$", PARTS, re.MULTILINE)
    shipped = [selector for selector, row in load_plugins().rows.items() if row.plugin.origin.startswith("pggan_kit ")]
    assert sorted(listed) == sorted(shipped)


def test_table_of_commands_is_complete() -> None:
    listed = set()
    for text in re.findall(r"^\| `pggan-kit (.+?)` \| .+ \|$", COMMANDS, re.MULTILINE):
        listed.add(" ".join(re.match(r"[a-z]+( [a-z]+(?= |$))?", text)[0].split()))  # type: ignore[index]
    assert listed == {" ".join(words) for words, _ in list_commands(main)}


def test_page_of_commands_names_every_option() -> None:
    named = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", COMMANDS))
    real = {"--help", "-h", *(option for param in main.params for option in param.opts)}
    for words, command in list_commands(main):
        options = {option for param in command.params if isinstance(param, click.Option) for option in param.opts}
        assert options <= named, " ".join(words)
        real |= options
    assert named <= real | {"--nproc-per-node", "--no-python"}


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\[[^\]]+\]\(([^)]+)\)", README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_commands_exist() -> None:
    named = set(re.findall(r"pggan-kit (\w+)", README))
    assert named
    assert named <= set(main.commands)


def test_its_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE)) <= targets


PLUGIN, GENERATOR = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_its_generator_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(GENERATOR, names)
    assert names["images"].shape == (20, 1, 28, 28)
    assert 0.5 < names["images"].max() < 1.5


def test_its_plugin_trains(tmp_path: Path, tiny: object, stub: str) -> None:
    plugin = tmp_path / "cosine.py"
    plugin.write_text(PLUGIN)
    config = tiny("train.switch = @switches.MyCosine()")  # type: ignore[operator]
    run = train(config, plugins=[stub, plugin])
    assert [alpha for alpha in run.alpha.values()] == [1.0] * 3


@pytest.mark.parametrize("block", re.findall(r"```gin\n(.*?)```", README, re.DOTALL))
def test_its_config_trains(block: str, tmp_path: Path) -> None:
    config = tmp_path / "mine.gin"
    config.write_text(block.replace("include '", f"include '{ROOT}/experiments/"))
    short = ["schedule.fade_images = '1 steps'", "schedule.stable_images = '1 steps'", "schedule.batch_size = 4"]
    assert train(config, [*short, "datasets.MNIST.limit = 64"], run_dir=tmp_path / "run").state.steps == 5
