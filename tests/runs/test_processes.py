"""Test what a run's folder says about the processes that trained in it: how each began and ended, and its warnings."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

import pggan_kit
from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, TrainingError, UserError
from pggan_kit.runs import processes
from pggan_kit.system.signals import StoppedAtOnce

Train = Callable[..., Any]


@pytest.fixture
def train(train: Train) -> Train:
    """Train the tiny experiment without its last stage, which nothing here needs: 24 images."""
    return lambda *lines, **options: train("schedule.sizes = (4, 8)", *lines, **options)


class FailsOnce:
    """A plugin that raises an exception, or sends a signal, after the third step."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action

    @hookimpl
    def after_step(self, state: Any) -> None:
        if state.images == 12:
            self.action()


def read_processes(run: str) -> list[dict[str, Any]]:
    """Return the rows of `run.json`."""
    rows = json.loads(Path(run, "run.json").read_text())["processes"]
    assert isinstance(rows, list)
    return rows


def raise_error() -> None:
    raise ValueError("broken")


def test_a_run_records_its_process(tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/pggan-kit", "train", "my config.gin", "-b", "train.seed = 1"])
    pggan_kit.train(tiny(), ["train.seed = 1"], run_dir="run", plugins=[stub])

    command = "pggan-kit train 'my config.gin' -b 'train.seed = 1'"
    about = json.loads(Path("run/run.json").read_text())
    assert about["command"] == command
    (row,) = read_processes("run")
    assert (row["command"], row["overrides"], row["process"]) == (command, ["train.seed = 1"], os.getpid())
    assert row["environment"]["torch"] == torch.__version__
    assert row["environment"]["pggan_kit"] == pggan_kit.__version__
    assert (row["outcome"], row["images"]) == ("finished", 40) and row["started"] <= row["ended"]

    first, *_, last = Path("run/log.txt").read_text().splitlines()
    assert f" began: {command} (process {os.getpid()} on " in first and f"torch {torch.__version__}" in first
    assert last.endswith(" ended at images 40: finished")


def test_a_module_is_recorded_as_it_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/pggan_kit/__main__.py", "resume", "a b"])
    assert processes.read_command_line() == "python -m pggan_kit resume 'a b'"


def test_a_failure_is_recorded_with_its_traceback_and_the_next_process_beside_it(train: Train, stub: str) -> None:
    with pytest.raises(TrainingError, match="broken"):
        train(plugins=(FailsOnce(raise_error),), run_dir="run")
    (row,) = read_processes("run")
    assert row["outcome"].startswith("failed: FailsOnce failed in its hook after_step (stage 8x8, images 12): ")
    assert row["images"] == 12
    log = Path("run/log.txt").read_text()
    assert re.search(r" ended at images 12: failed: .*ValueError: broken\n    Traceback ", log)
    assert "\n    ValueError: broken" in log and "in raise_error" in log

    resume("run", plugins=[stub])
    assert [row["outcome"] for row in read_processes("run")] == [row["outcome"], "finished"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_is_recorded(train: Train, name: str) -> None:
    number = getattr(signal, name)
    with pytest.raises(Interrupted):
        train(plugins=(FailsOnce(lambda: os.kill(os.getpid(), number)),), run_dir="run")
    (row,) = read_processes("run")
    assert row["outcome"].startswith(f"stopped by {name}: stopped at images 12 and saved; go on with: pggan-kit resume")
    assert f" ended at images 12: stopped by {name}: " in Path("run/log.txt").read_text()


def test_a_process_that_was_killed_has_no_end(train: Train, stub: str) -> None:
    train(run_dir="run")
    about = json.loads(Path("run/run.json").read_text())
    about["processes"][-1]["ended"] = None
    Path("run/run.json").write_text(json.dumps(about))
    resume("run", plugins=[stub])
    log = Path("run/log.txt").read_text()
    said = (
        "run.json has no end of the process before this one: it was killed, the machine stopped, or the disk was full"
    )
    assert log.count(said) == 1
    assert [row["ended"] is None for row in read_processes("run")] == [True, False]


def test_each_end_has_its_words() -> None:
    described = [
        processes.describe_outcome(error)
        for error in (
            None,
            Interrupted(None, "out of\ntime"),
            StoppedAtOnce(signal.SIGTERM),
            KeyboardInterrupt(),
            UserError("wrong"),
            KeyError("x"),
        )
    ]
    assert described == [
        "finished",
        "stopped: out of time",
        "stopped at once by SIGTERM",
        "stopped at once by Ctrl-C",
        "failed: wrong",
        "failed: KeyError: 'x'",
    ]


def test_a_folder_that_lost_its_run_json_gets_none_at_the_end(train: Train) -> None:
    """The error that ended the run is the one that is raised."""

    def spoil() -> None:
        Path("run/run.json").unlink()
        raise ValueError("broken")

    with pytest.raises(TrainingError, match="ValueError: broken"):
        train(plugins=(FailsOnce(spoil),), run_dir="run")
    assert not Path("run/run.json").exists()
    assert "run.json does not say how this process ended" in Path("run/log.txt").read_text()


def test_a_damaged_list_of_processes_is_an_error(train: Train, cli: Callable[..., Result], stub: str) -> None:
    train(run_dir="run")
    about = json.loads(Path("run/run.json").read_text())
    Path("run/run.json").write_text(json.dumps({**about, "processes": 7}))
    result = cli("resume", "run", "--plugin", stub)
    assert result.exit_code == 2 and "its processes are no list of rows" in result.stderr


class Warns:
    """A plugin that warns by itself, at each step and in two categories."""

    @hookimpl
    def after_step(self) -> None:
        warnings.warn("images are odd", stacklevel=2)
        warnings.warn("for developers", DeprecationWarning, stacklevel=2)


def test_warnings_are_recorded_once_whatever_the_filters_say(train: Train) -> None:
    """Also those from before there was a folder: the images of the data set are enlarged."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("ignore")
        train("datasets.Stub.height = 4", "datasets.Stub.width = 4", plugins=(Warns(),), run_dir="run")
    assert shown == []
    log = Path("run/log.txt").read_text()
    assert log.count("warning: images are odd\n") == 1
    assert log.count("images are smaller than 8x8, and enlarged\n") == 1
    assert "for developers" not in log


def test_recording_warnings_changes_nothing_about_who_is_shown_them(train: Train) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TrainingError, match="UserWarning: images are odd"):
            train(plugins=(Warns(),), run_dir="run")
    with pytest.warns(UserWarning, match="images are odd") as shown:
        train(plugins=(Warns(),))
    assert sum(str(warning.message) == "images are odd" for warning in shown) == 6
    assert Path("run/log.txt").read_text().count("warning: images are odd\n") == 1


def test_the_warnings_of_a_run_itself_are_recorded_once(train: Train) -> None:
    class Spoils:
        @hookimpl
        def before_run(self, run: Any) -> None:
            run.files.warn("the disk is nearly full")

    with pytest.warns(UserWarning, match="the disk is nearly full"):
        train("schedule.sizes = (4,)", plugins=(Spoils(),), run_dir="run")
    assert Path("run/log.txt").read_text().count("the disk is nearly full") == 1
