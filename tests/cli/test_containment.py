"""Test that a command ends in one line, whatever goes wrong; and what it does to streams and targets."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from conftest import TINY
from helpers.patience import PATIENCE_SECONDS
from helpers.waiting import fail_if_it_waits

import pggan_kit
from pggan_kit.ablation.conduct import run_ablation
from pggan_kit.api import sample as sampling
from pggan_kit.cli import base, main
from pggan_kit.errors import RunError
from pggan_kit.runs.targets import require_target_outside_runs

Cli = Callable[..., Result]

BROKEN = """\
import torch
from torch import nn

from pggan_kit import Component, hookimpl
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import Hinge
from pggan_plugins.optimizers import Adam
from pggan_plugins.resampling import Nearest
from pggan_plugins.switches import Linear
from pggan_plugins.updates import Alternating


def fail(*_, **__):
    raise KeyError("boom")


class Fails(nn.Module):
    forward = fail


class Blocks(PGGAN):
    def generator_block(self, previous, stage, resampling):
        return Fails()


class Heads(PGGAN):
    def discriminator_head(self, stage):
        return Fails()


class Stems(PGGAN):
    def generator_stem(self, latent_size, stage):
        fail()


class Up(Nearest):
    def up(self, channels, factor):
        fail()


class Loss(Hinge):
    discriminator = fail


class Update(Alternating):
    def step(self, ctx):
        fail()


class Stepping(Adam):
    def build(self, params, stage):
        optimizer = torch.optim.SGD(params, lr=0.1)
        optimizer.step = fail
        return optimizer


class Building(Adam):
    build = fail


class Augmentation:
    __call__ = fail


class Data:
    classes = 0

    def __init__(self, first=0):
        self.first = first

    def __len__(self):
        return 12

    def image(self, i):
        if i == self.first:
            fail()
        return torch.zeros(16, 16, 1, dtype=torch.uint8).numpy()

    def label(self, i):
        return 0

    def fingerprint(self):
        return "broken"


@hookimpl
def components():
    return [
        *[Component("architectures", kind.__name__, kind) for kind in (Blocks, Heads, Stems)],
        *[Component("optimizers", kind.__name__, kind) for kind in (Stepping, Building)],
        Component("resampling", "Up", Up),
        Component("losses", "Loss", Loss),
        Component("updates", "Update", Update),
        Component("augmentations", "Augmentation", Augmentation),
        Component("datasets", "Data", Data),
    ]
"""

AT_START = r"training failed at images 0 \(stage 4x4, stable\)"
AT_GROWTH = r"training failed at images 8 \(stage 8x8, fade\)"
MAKING = "making networks and optimizers failed"
FAILURES = {
    "a block": ("PGGAN", "Blocks", AT_GROWTH, "architectures.Blocks"),
    "a head": ("PGGAN", "Heads", AT_START, "architectures.Heads"),
    "networks": ("PGGAN", "Stems", MAKING, "architectures.Stems"),
    "resampling": ("resampling.Nearest", "resampling.Up", "training failed at images 8", "resampling.Up"),
    "a loss": ("losses.Hinge", "losses.Loss", AT_START, "losses.Loss"),
    "an update": ("updates.Alternating", "updates.Update", AT_START, "updates.Update"),
    "an optimizer's step": ("optimizers.Adam", "optimizers.Stepping", AT_START, "optimizers.Stepping"),
    "an optimizer": ("optimizers.Adam", "optimizers.Building", MAKING, "optimizers.Building"),
    "an augmentation": (
        "train.latent_size",
        "train.augmentation = @augmentations.Augmentation()\ntrain.latent_size",
        AT_START,
        "augmentations.Augmentation",
    ),
    "the first image": ("datasets.Stub", "datasets.Data", "reading the data set failed", "datasets.Data"),
    "another image": (
        "datasets.Stub()",
        "datasets.Data()\ndatasets.Data.first = 5",
        "preparing the data failed",
        "datasets.Data",
    ),
}
"""What fails: a text of the tiny config, what replaces it, the beginning of the message, and the part that it names."""


@pytest.mark.parametrize("case", FAILURES)
def test_an_error_that_nobody_foresaw_ends_as_one_line(
    case: str, tiny: Callable[..., str], cli: Cli, stub: str, tmp_path: Path
) -> None:
    old, new, start, selector = FAILURES[case]
    Path("broken.py").write_text(BROKEN)
    result = cli("train", tiny(base=TINY.replace(old, new)), "--plugin", stub, "--plugin", "broken.py")
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    message = result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr and len(message) < 600
    place = rf" in (train\.[\w.]+ \()?{selector}\)?, broken\.py:\d+"
    assert re.search(rf"^error: {start}.*{place}: KeyError: 'boom' \(", message), message
    assert message.endswith("to see it here: pggan-kit --debug train ...)")

    # A run that began keeps the traceback.
    if start.startswith("training"):
        log = tmp_path / "runs/00000-tiny/log.txt"
        assert "(the traceback is in runs/00000-tiny/log.txt; " in message
        assert "    KeyError: 'boom'" in log.read_text() and "in fail\n" in log.read_text()
    else:
        assert not list(tmp_path.glob("runs/[!.]*"))


ENDS = ["SystemExit(0)", "SystemExit('enough')", "type('Odd', (BaseException,), {})('boom')"]


@pytest.mark.parametrize("raised", ENDS)
def test_no_part_brings_the_end_about_outside_of_training(
    raised: str, tiny: Callable[..., str], cli: Cli, stub: str
) -> None:
    """An exit code of 0 before anything was done would look like success."""
    Path("broken.py").write_text(BROKEN.replace('KeyError("boom")', raised))
    config = tiny(base=TINY.replace("datasets.Stub", "datasets.Data"))
    for words in (["train"], ["data", "build"]):
        result = cli(*words, config, "--plugin", stub, "--plugin", "broken.py")
        assert result.exit_code == 1, result.output
        assert isinstance(result.exception, SystemExit)
        assert re.search(r"^error: .* broken\.py:\d+: (SystemExit|Odd)", result.stderr.splitlines()[-1]), result.stderr
    assert not Path("runs").exists()


def test_an_error_without_a_message_is_one_line_too(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    """An exception of a plugin may fail to make its own text."""
    silent = "type('Silent', (Exception,), {'__str__': lambda self: 1 / 0})()"
    Path("broken.py").write_text(BROKEN.replace('KeyError("boom")', silent))
    config = tiny(base=TINY.replace("losses.Hinge", "losses.Loss"))
    result = cli("train", config, "--plugin", stub, "--plugin", "broken.py")
    assert re.search(r"^error: training failed .* broken\.py:\d+: Silent \(", result.stderr.splitlines()[-1])
    assert "failed: training failed at images 0" in Path("runs/00000-tiny/log.txt").read_text()


def test_debug_shows_what_nobody_foresaw(tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    Path("broken.py").write_text(BROKEN)
    config = tiny(base=TINY.replace("losses.Hinge", "losses.Loss"))
    result = cli("--debug", "train", config, "--plugin", stub, "--plugin", "broken.py")
    assert "training failed" in str(result.exception)
    assert isinstance(result.exception.__cause__, KeyError)  # type: ignore[union-attr]


def test_what_fails_outside_of_any_run_is_contained_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied", "run/run.json")

    monkeypatch.setattr(sampling, "load_generator", fail)
    result = cli("sample", finished, "--out", "x.npz")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("error: sample failed")
    assert ": PermissionError: [Errno 13] Permission denied: 'run/run.json' (to see it here" in result.stderr


def test_errors_of_usage_stay_those_of_click(cli: Cli) -> None:
    assert cli("sample", "run").exit_code == 2
    assert cli("nothing").exit_code == 2
    assert cli("--help").exit_code == 0


@pytest.mark.parametrize("device", ["meta", "cuda:77", "hpu", "nothing"])
def test_an_impossible_device_is_refused(device: str, rejected: Callable[..., str]) -> None:
    rejected(rf"train\.device '{device}' cannot be used: ", args=["-b", f"train.device = '{device}'"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a finished run of one stage."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.gin").write_text(TINY.replace("(4, 8, 16)", "(4,)"))
    pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])
    return folder / "run"


def test_more_images_than_memory_holds_are_refused(finished: Path, cli: Cli, refused: Callable[..., str]) -> None:
    refused(cli("sample", finished, "--count", 10**11, "--out", "x.png"), r"--count 100000000000: .* need .* MiB; draw")


def test_a_report_without_a_home_folder_says_what_to_set(
    finished: Path, cli: Cli, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = __import__

    def fail(name: str, *arguments: Any) -> Any:
        if name == "matplotlib":
            raise RuntimeError("Could not determine home directory.")
        return real(name, *arguments)

    monkeypatch.setattr("builtins.__import__", fail)
    refused(cli("report", finished), "Could not determine home.*set MPLCONFIGDIR to a folder that can be written")


# Targets.


def list_parameters(group: click.Group = main, before: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Yield the parameters of all commands, each with the command's name."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from list_parameters(command, f"{before}{name} ")
        for parameter in command.params:
            yield f"{before}{name}", parameter


TARGETS = {"--run-dir", "--out", "--figures", "--into", "--plugin", "--from"}
RUNS_AND_FILES = {"config", "run", "runs", "folder", "against", "file", "before", "after"}


def test_every_path_of_every_command_is_read_alike() -> None:
    seen = set()
    for command, parameter in list_parameters():
        assert not isinstance(parameter.type, click.Path), f"{command} {parameter.name}: its type is PATH"
        is_named = bool(TARGETS & set(parameter.opts)) or isinstance(parameter, click.Argument)
        if is_named and (parameter.opts[0] in TARGETS or parameter.name in RUNS_AND_FILES):
            assert isinstance(parameter.type, base.UserPath), f"{command} {parameter.name}"
            seen.add(parameter.opts[0])
        if parameter.name == "as_json":
            assert parameter.callback is base._keep_stdout_for_json, f"{command}: its option is json_option"
    assert seen == TARGETS | RUNS_AND_FILES


def test_an_empty_path_is_refused_and_a_home_folder_is_found(
    finished: Path, cli: Cli, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    refused(cli("sample", finished, "--out", ""), r"^error: --out is empty: name a file or a folder$")
    refused(cli("train", "x.gin", "--run-dir="), r"--run-dir is empty")
    refused(cli("resume", ""), r"RUN is empty")
    refused(cli("sample", finished, "--out", "~nobody-here/x.npz"), r"--out ~nobody-here/x\.npz: nobody has this home")
    assert cli("sample", finished, "--count", 2, "--out=~/x.npz").exit_code == 0
    assert (tmp_path / "home/x.npz").is_file() and not Path("~").exists()


def test_a_run_is_no_target_of_what_is_drawn_from_it(finished: Path, cli: Cli, refused: Callable[..., str]) -> None:
    Path("run").symlink_to(finished)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    refused(cli("sample", "run", "--out", "run"), r"--out run is the folder of a run: name another")
    refused(cli("sample", "run", "--out", "run/checkpoints"), r"--out run/checkpoints would replace what the run")
    refused(cli("report", "run", "--out", "run/run.json"), r"--out run/run\.json would replace")
    refused(cli("report", "run", "--out", "run"), r"--out run is the folder of a run")
    refused(cli("report", "run", "--out", "x.html", "--figures", "run/../run"), r"--figures run/\.\./run is the folder")
    refused(cli("bench", "x.gin", "--json", "run/stats.jsonl"), r"--json run/stats\.jsonl would replace")
    with pytest.raises(RunError, match="--out run is the folder of a run"):
        run_ablation(None, None, Path("run"))  # type: ignore[arg-type]
    require_target_outside_runs("--out", Path("run/report.html"))
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


def test_an_ablation_loses_nothing_to_what_is_drawn_from_it(
    finished: Path, cli: Cli, refused: Callable[..., str]
) -> None:
    Path("ablation/logs").mkdir(parents=True)
    Path("ablation/plan.json").write_text("{}")
    for name in ("plan.json", "results.csv", "analysis.json", "table.txt", "configs/a.gin", "logs/a-0.log"):
        target = f"ablation/{name}"
        message = rf"--out {target} would replace what the ablation .*/ablation needs: name another"
        refused(cli("report", "ablation", "--out", target), message)
    refused(cli("sample", finished, "--out", "ablation/logs"), r"--out ablation/logs would replace")
    refused(cli("report", "ablation", "--out", "x.html", "--figures", "ablation/logs"), r"--figures .* would replace")
    for name in ("report.html", "runs/hard/0/report.html"):
        require_target_outside_runs("--out", Path("ablation", name))


@pytest.mark.parametrize("command", ["sample", "a folder", "report", "bench"])
def test_a_named_pipe_is_no_target(command: str, finished: Path, cli: Cli, refused: Callable[..., str]) -> None:
    Path("folder").mkdir()
    for name in ("x.npz", "folder/000001.png"):
        os.mkfifo(name)
    commands = {
        "sample": ["sample", finished, "--out", "x.npz"],
        "a folder": ["sample", finished, "--count", 2, "--out", "folder"],
        "report": ["report", finished, "--out", "x.npz"],
        "bench": ["bench", "x.gin", "--json", "x.npz"],
    }
    with fail_if_it_waits():
        message = r"cannot write x\.npz: it is no regular file"
        if command == "a folder":
            message = r"--out folder: it holds images of an earlier call \(000001\.png\)"
        refused(cli(*commands[command]), message)
    assert Path("x.npz").is_fifo()


# Streams.


@pytest.mark.parametrize("charset", ["ascii", "cp1252"])
def test_a_stream_that_lacks_characters_gets_escapes(
    charset: str, tiny: Callable[..., str], stub: str, tmp_path: Path
) -> None:
    name = tiny(name="größe-数据.gin")
    runner = CliRunner(charset=charset)
    assert runner.invoke(main, ["config", "show", name, "--plugin", stub]).exit_code == 0
    result = runner.invoke(main, ["config", "check", name, "--plugin", stub])
    assert result.exit_code == 0, result.exception
    assert r"-\u6570\u636e.gin: good" in result.stdout
    result = runner.invoke(main, ["train", "数据.gin"])
    assert result.exit_code == 2 and r"\u6570\u636e.gin: no such file" in result.stderr
    assert runner.invoke(main, ["plugins", "list"]).exit_code == 0


def test_a_closed_stdout_is_no_failure() -> None:
    command = [sys.executable, "-m", "pggan_kit", "plugins", "show", "losses.Hinge"]
    script = 'exec "$@" >&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


class Unread(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_console_that_nobody_reads_goes_silent() -> None:
    console = base.OutputConsole(file=Unread())
    console.print("first")
    console.print("second")
    assert console.quiet


def test_a_run_outlives_those_who_read_its_progress(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Unread())
    with pytest.warns(UserWarning, match="nobody reads stderr any more. It is tried again at the next tick"):
        run = train("train.observers = [@observers.Progress()]", "schedule.sizes = (4,)")
    assert run.state.images == 8


LOUD = """\
from pggan_kit import hookimpl

print("hello from a plugin")

@hookimpl
def components():
    print("and once more")
    return []
"""


@pytest.mark.parametrize("command", [["plugins", "list"], ["plugins", "show", "losses.Hinge"]])
def test_what_a_plugin_prints_is_not_among_the_json(command: list[str], cli: Cli) -> None:
    Path("loud.py").write_text(LOUD)
    result = cli(*command, "--json", "--plugin", "loud.py")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
    assert result.stderr.splitlines() == ["hello from a plugin", "and once more"]
    assert "hello" in cli(*command, "--plugin", "loud.py").stdout, "without --json it is left alone"


def test_paths_in_printed_commands_are_quoted(
    tiny: Callable[..., str], cli: Cli, stub: str, refused: Callable[..., str]
) -> None:
    args = ["train", tiny("schedule.sizes = (4,)"), "--plugin", stub, "--run-dir", "my run"]
    assert cli(*args).exit_code == 0
    refused(cli(*args), r"or `pggan-kit resume 'my run'`$")
    written = cli("plugins", "new", "my-loss", "--kind", "losses", "--single-file", "--into", "my plugins")
    assert "train 'my plugins/my_loss.gin' --plugin 'my plugins/my_loss.py'" in written.stdout


BRACKETS = ["a[bold]b.gin", "a[/b].gin", r"a\[/b].gin", r"a\[bold]b.gin", "[red]"]


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets_are_text(name: str, tiny: Callable[..., str], cli: Cli, stub: str) -> None:
    """To rich they are markup; a path and a message may hold any."""
    missing = cli("train", name)
    assert missing.exit_code == 2 and name in missing.stderr, missing.output

    folder = Path(f"[b]{name.replace('/', '')}")
    folder.mkdir()
    config = folder / "x.gin"
    config.write_bytes(Path(tiny()).read_bytes())
    checked = cli("config", "check", config, "--plugin", stub)
    assert checked.exit_code == 0 and f"{config}: good" in checked.stdout, checked.output


@pytest.mark.parametrize("name", BRACKETS)
def test_brackets_of_messages_are_text(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    base._print_warning(UserWarning(f"no match for {name!r} in {name}"), UserWarning, "file", 1)
    base.print_message(f"wrote {name}")
    shown = capsys.readouterr().err
    assert f"warning: no match for {name!r} in {name}" in shown.replace("\n", " ") and f"wrote {name}" in shown
