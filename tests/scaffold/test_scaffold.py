"""New plugins: those that `plugins new` writes work, from nothing to training, for every kind."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.forks import run_pytest
from helpers.fresh import fresh_python
from helpers.patience import PATIENCE_SECONDS

from pggan_kit import JsonLines, scaffold
from pggan_kit.api import prepare as api
from pggan_kit.api.train import resume, train
from pggan_kit.components import KINDS
from pggan_kit.errors import PluginError
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.testing import load_hooks

KINDS_TO_WRITE = scaffold.KINDS_TO_WRITE


def name_plugin(kind: str) -> str:
    return f"my-{kind}"


def test_there_is_a_template_for_each_kind_and_for_hooks_alone() -> None:
    assert set(KINDS_TO_WRITE) == {*KINDS, "hooks"}
    assert set(scaffold.USES) == set(KINDS_TO_WRITE)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a plugin of each kind."""
    folder = tmp_path_factory.mktemp("written")
    for kind in KINDS_TO_WRITE:
        scaffold.write_plugin(name_plugin(kind), kind, folder)
    return folder


FEW = "not TestMy or keeps_its_protocol or bad_arguments or trains_through"
"""Tests that a template adds to the suite of its kind, and few of the suite, which the shipped components pass too."""


@pytest.mark.parametrize("chosen", [pytest.param(FEW, id="few"), pytest.param("", id="all", marks=pytest.mark.slow)])
def test_the_tests_of_each_plugin_pass(chosen: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = [written / name_plugin(kind) for kind in KINDS_TO_WRITE]
    for package in packages:
        monkeypatch.syspath_prepend(package)
    done = run_pytest(written, "--import-mode=importlib", "-k", chosen, *packages)
    assert done.returncode == 0, done.read_output()
    tests = {path.name for path in written.glob("*/tests/test_*.py")}
    assert len(tests) == len(KINDS_TO_WRITE)


def test_its_tests_pass_below_a_project_with_tests_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of that project would make a package of the folder, which has the name of the module in it."""
    (tmp_path / "setup.cfg").write_text("[tool:pytest]\naddopts = --import-mode=importlib\n")
    scaffold.write_plugin("beside", "switches", tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "beside")
    done = run_pytest(tmp_path, "-k", "keeps_its_protocol", "beside")
    assert done.returncode == 0, done.read_output()


@pytest.mark.parametrize("kind", [kind for kind in KINDS_TO_WRITE if kind not in ("hooks", "launchers")])
def test_its_experiment_uses_the_component(kind: str, written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(written)
    package = written / name_plugin(kind)
    prepared = api.prepare(package / "try.gin", plugins=[package / f"my_{kind}.py"])
    component = f"{kind}.My{kind.title().replace('_', '')}"
    assert component in [row.selector for row, _ in prepared.built.components.values()]
    assert prepared.built.idle == ()


def test_a_plugin_of_hooks_alone_takes_part_in_a_run(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = written / name_plugin("hooks")
    short = [f"schedule.{name} = '1 steps'" for name in ("stable_images", "fade_images")]
    bindings = [*short, "schedule.sizes = (7,)", "train.observers = []"]
    train(package / "try.gin", bindings, plugins=[package / "my_hooks.py"], run_dir=tmp_path / "run")
    diary = JsonLines(tmp_path / "run" / "my_hooks.jsonl")
    lines = [{"images": 32, "line": "stage 7x7"}, {"images": 32, "line": "done after 1 steps"}]
    assert diary.read() == lines

    # Its last hooks are called once more, and it writes on one rank alone.
    resume(tmp_path / "run", plugins=[package / "my_hooks.py"])
    assert diary.read() == lines
    (plugin,) = load_plugins([package / "my_hooks.py"]).loaded[-1:]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    run = SimpleNamespace(directory=tmp_path / "run", resumed=True, state=SimpleNamespace(images=32))
    load_hooks(plugin.object).call("before_run", run=run)
    load_hooks(plugin.object).call("after_run", run=run, result={"steps": 1})
    assert diary.read() == lines


def test_a_launchers_ablation_is_well_formed(written: Path) -> None:
    from pggan_kit.ablation import plan_reading

    package = written / name_plugin("launchers")
    ablation, launcher = plan_reading.read_plan(package / "try.gin", plugins=[package / "my_launchers.py"])
    assert type(launcher).__name__ == "MyLaunchers"
    assert list(ablation.variants) == ["soft", "hard"]


def find_commands(shown: str) -> list[list[str]]:
    """Return the commands that `plugins new` names: install, try, test."""
    return [line.split() for line in re.findall(r"^    (\S.*)$", shown, re.MULTILINE)]


def go_from_nothing_to_training(kind: str, folder: Path, name: str, cli: Callable[..., Result] | None = None) -> None:
    """Run the commands that a user types, in an environment of their own, without a network.

    Args:
        kind: Kind of the plugin.
        folder: Working directory.
        name: Name of the plugin.
        cli: Function that writes the plugin in this process, which saves one more start of Python.
    """
    python = fresh_python(folder)
    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    kit = (str(python), "-m", "pggan_kit")
    new = ("plugins", "new", name, "--kind", kind)
    install, attempt, _ = find_commands(cli(*new).stdout if cli else run(*kit, *new))
    assert install == ["pip", "install", "-e", name]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "--python", str(python))
    run(*pip, *install[1:], "--no-deps", "--no-build-isolation", "--no-index")
    # With small budgets: whether it trains is asked here, not how well.
    config = folder / name / "try.gin"
    config.write_text(config.read_text().replace("= 640", "= 64").replace("(7, 14, 28)", "(7, 14)"))
    assert attempt == ["pggan-kit", "ablate" if kind == "launchers" else "train", f"{name}/try.gin"]
    run(*kit, *attempt[1:])
    assert list(folder.rglob("operative.gin"))


def test_from_nothing_to_training_is_three_commands(tmp_path: Path, cli: Callable[..., Result]) -> None:
    # The folder has the name of its module, and `python -m` looks for modules beside it first.
    go_from_nothing_to_training("losses", tmp_path, "my_losses", cli)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS_TO_WRITE if kind != "losses"])
def test_from_nothing_to_training_for_every_other_kind(kind: str, tmp_path: Path) -> None:
    go_from_nothing_to_training(kind, tmp_path, name_plugin(kind))


def test_a_single_file_is_one_command(cli: Callable[..., Result]) -> None:
    shown = cli("plugins", "new", "my-fade", "--kind", "switches", "--single-file")
    assert shown.exit_code == 0, shown.output
    assert sorted(path.name for path in Path().iterdir()) == ["my_fade.gin", "my_fade.py"]
    (command,) = find_commands(shown.stdout)
    assert command == ["pggan-kit", "train", "my_fade.gin", "--plugin", "my_fade.py"]
    short = ["-b", "schedule.sizes = (7, 14)", "-b", "train.observers = []"]
    for name in ("stable_images", "fade_images"):
        short += ["-b", f"schedule.{name} = '1 steps'"]
    result = cli(*command[1:], *short)
    assert result.exit_code == 0, result.output
    assert "train.switch = @switches.MyFade()" in Path("runs/00000-my_fade/config.gin").read_text()


WRONG = {
    ("mine", "lossess"): r"--kind lossess: no such kind \(did you mean losses\?\); kinds are architectures, .*, hooks",
    ("mine", "hook"): r"--kind hook: no such kind \(did you mean hooks\?\)",
    ("2nd", "losses"): r"NAME 2nd: use letters, digits, - and _, beginning with a letter, as my-loss",
    ("a b", "losses"): "NAME a b: use letters",
    ("a/b", "losses"): "NAME a/b: use letters",
    ("..", "losses"): r"NAME \.\.: use letters",
    ("lambda", "losses"): "NAME lambda: Python itself has something called lambda",
    ("setup", "losses"): "NAME setup: setuptools or pytest would take setup.py for a file of their own",
    ("ConfTest", "losses"): "NAME ConfTest: setuptools or pytest would take conftest.py for a file of their own",
    ("json", "losses"): "NAME json: Python itself has something called json",
    ("torch", "losses"): "NAME torch: a module of this name is installed already",
    ("losses", "losses"): r"NAME losses: a plugin of this name is installed \(pggan_kit .*\); choose another",
    ("stem", "architectures"): "NAME: Stem has another meaning in the file that would be written; choose another name",
    ("repeat", "resampling"): "NAME: Repeat has another meaning",
    ("component", "losses"): "NAME: Component has another meaning",
    ("json-lines", "observers"): "NAME: JsonLines has another meaning",
    ("hinge", "losses"): r"NAME: losses\.Hinge comes with losses \(pggan_kit .*\); choose another",
}


@pytest.mark.parametrize(("name", "kind"), WRONG)
def test_a_name_or_kind_that_cannot_be_is_refused(
    name: str, kind: str, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli("plugins", "new", name, "--kind", kind), WRONG[name, kind])
    assert list(Path().iterdir()) == []


def test_a_name_may_hold_that_of_the_templates(cli: Callable[..., Result]) -> None:
    assert cli("plugins", "new", "mine-too", "--kind", "losses").exit_code == 0
    assert 'name = "mine-too"\n' in Path("mine-too/pyproject.toml").read_text()
    assert "# mine-too\n" in Path("mine-too/README.md").read_text()
    assert "class MineToo" in Path("mine-too/mine_too.py").read_text()


@pytest.mark.parametrize("kind", KINDS_TO_WRITE)
def test_a_package_names_its_own_component_alone(kind: str, cli: Callable[..., Result]) -> None:
    assert cli("plugins", "new", "my-part", "--kind", kind).exit_code == 0
    for path in Path("my-part").rglob("*.*"):
        assert path.is_dir() or not re.search(r"\b(Mine|mine)\b", path.read_text()), path


@pytest.mark.parametrize("single", [False, True])
def test_existing_files_are_not_overwritten(
    single: bool, cli: Callable[..., Result], refused: Callable[[Result, str], str], tmp_path: Path
) -> None:
    existing = tmp_path / ("twice.py" if single else "twice")
    existing.touch()
    options = ["--single-file"] if single else []
    refused(cli("plugins", "new", "twice", "--kind", "losses", *options), rf"{existing.name} exists already")
    assert list(tmp_path.iterdir()) == [existing] and existing.read_bytes() == b""


@pytest.mark.parametrize("single", [False, True])
def test_a_plugin_that_cannot_be_written_whole_leaves_nothing(
    single: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the same command can be given again."""
    write = Path.write_text
    written: list[Path] = []

    def fail_at_the_second(path: Path, text: str, **options: Any) -> int:
        written.append(path)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        return write(path, text, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail_at_the_second)
        with pytest.raises(PluginError, match=r"cannot write .*: No space left on device"):
            scaffold.write_plugin("mine-too", "losses", tmp_path, single)
    assert list(tmp_path.iterdir()) == []
    files, _ = scaffold.write_plugin("mine-too", "losses", tmp_path, single)
    assert all(path.is_file() for path in files)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PluginError, match="cannot write"):
        scaffold.write_plugin("mine", "losses", tmp_path / "file")
