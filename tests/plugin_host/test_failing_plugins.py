"""Plugins that fail during a run: which end it, which do not, and what is never lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.forks import fork_command
from helpers.patience import PATIENCE_SECONDS

from pggan_kit import Component, hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.errors import RunError, TrainingError
from pggan_kit.plugin_host.contracts import HOOKS
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_plugins.observers import Growth, Progress, Samples, TensorBoard

CALLED = ["before_run", "before_stage", "before_fade", "after_fade", "after_step", "after_tick", "after_stage"]
CALLED += ["save_state", "after_run"]


def make_failing_observer(hook: str, error: Exception, critical: bool | None) -> type:
    """Return the class of an observer that records its calls, and fails in a hook.

    Args:
        hook: The hook, which fails in its second call; in its first where a run has only one.
        error: The exception that it raises.
        critical: The observer's `critical`; None leaves it out.
    """

    class Watcher:
        calls: list[str] = []  # noqa: RUF012

    for name in (*CALLED, "on_error"):

        def record(self: Any, run: Any, name: str = name) -> Any:
            Watcher.calls.append(name)
            failing_call = 1 if name in ("before_run", "after_run") else 2
            if name == hook and Watcher.calls.count(name) == failing_call:
                raise error
            return {"n": 1}

        setattr(Watcher, name, hookimpl(record))
    if critical is not None:
        Watcher.critical = critical  # type: ignore[attr-defined]
    return Watcher


def make_row(observer: type) -> Component:
    return Component("observers", "Watcher", observer)


WATCH = "train.observers = [@observers.Watcher()]"


@pytest.mark.parametrize("hook", CALLED)
def test_an_observer_that_is_not_critical_is_switched_off_and_the_run_goes_on(
    train: Callable[..., Any], hook: str
) -> None:
    plain = train()
    observer: Any = make_failing_observer(hook, ValueError("broken"), critical=False)
    with pytest.warns(
        UserWarning, match=rf"train\.observers\.0 failed in its hook {hook}.*ValueError: broken"
    ) as warned:
        run = train(WATCH, plugins=(make_row(observer),))
    assert run.state.images == 40
    assert sum("switched off; the run continues" in str(warning.message) for warning in warned) == 1
    assert observer.calls[-1] == "on_error", "it may release its resources, and is not called again"
    assert observer.calls.count("on_error") == 1
    assert "warning: train.observers.0 failed in its hook" in (run.directory / "log.txt").read_text()
    for name, value in plain.state.ema.state_dict().items():
        assert torch.equal(value, run.state.ema.state_dict()[name])
    saved = run.checkpoints.load_last().components
    assert ("train.observers.0" in saved) == (hook == "after_run"), "an observer that is switched off has no state"


@pytest.mark.parametrize("critical", [True, None])
@pytest.mark.parametrize("hook", CALLED)
def test_other_observers_end_the_run_and_are_named(train: Callable[..., Any], hook: str, critical: bool | None) -> None:
    observer: Any = make_failing_observer(hook, ValueError("broken"), critical)
    with pytest.raises(TrainingError, match=rf"train\.observers\.0 failed in its hook {hook}.*ValueError: broken"):
        train(WATCH, plugins=(make_row(observer),))


def test_wrong_input_ends_a_run_before_its_first_step_and_not_later(train: Callable[..., Any]) -> None:
    """A full disk under a drawing does not end a run; a checkpoint that does not fit fails by itself."""
    early: Any = make_failing_observer("before_run", RunError("wrong input"), critical=False)
    with pytest.raises(RunError, match="wrong input"):
        train(WATCH, plugins=(make_row(early),))
    late: Any = make_failing_observer("after_tick", RunError("cannot write growth.gif: No space left"), critical=False)
    with pytest.warns(UserWarning, match="No space left"):
        assert train(WATCH, plugins=(make_row(late),)).state.images == 40


def test_no_other_kind_can_be_switched_off(train: Callable[..., Any]) -> None:
    """A switch that fails and is left out would be another experiment."""

    class Switch:
        critical = False

        @hookimpl
        def fade_alpha(self) -> float:
            raise ValueError("broken")

    with pytest.raises(TrainingError, match=r"train\.switch failed in its hook fade_alpha"):
        train("train.switch = @switches.Mine()", plugins=(Component("switches", "Mine", Switch),))


@pytest.mark.parametrize("observer", [Growth, Progress, Samples, TensorBoard])
def test_no_shipped_observer_can_end_a_run(observer: type) -> None:
    assert getattr(observer, "critical", True) is False


def test_a_drawing_that_cannot_be_written_does_not_end_the_run(train: Callable[..., Any]) -> None:
    class Spoiler:
        @hookimpl
        def before_stage(self, run: Any) -> None:
            (run.directory / "growth.gif").mkdir(exist_ok=True)

    lines = ["train.observers = [@observers.Growth()]", "observers.Growth.count = 1"]
    with pytest.warns(UserWarning, match=r"cannot write .*growth\.gif.*switched off; the run continues"):
        assert train(*lines, plugins=(Spoiler(),)).state.images == 40


def test_a_plugin_that_fails_in_after_run_loses_nothing(train: Callable[..., Any], stub: str) -> None:
    plain = train(run_dir="plain")

    class Last:
        @hookimpl
        def after_run(self, run: Any) -> None:
            assert run.checkpoints.load_last().images == 40, "the last checkpoint is written before after_run"
            raise ValueError("broken")

    with pytest.raises(TrainingError, match="Last failed in its hook after_run"):
        train(plugins=(Last(),), run_dir="run")
    generator = load_generator("run", plugins=[stub])
    assert generator.images == 40
    for name, value in plain.state.ema.state_dict().items():
        assert torch.equal(value, generator.generator.state_dict()[name])


HANGS = """
import time
from pathlib import Path
from pggan_kit import hookimpl

@hookimpl
def after_run():
    Path("hangs").touch()
    time.sleep(600)
"""


def test_a_plugin_that_hangs_in_after_run_loses_nothing(
    tiny: Callable[..., str], cli: Callable[..., Result], stub: str
) -> None:
    Path("hangs.py").write_text(HANGS)
    process = fork_command("train", tiny(), "--run-dir", "run", "--plugin", stub, "--plugin", "hangs.py")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not Path("hangs").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Path("hangs").exists()
    assert Checkpoints(Path("run/checkpoints")).load_last().images == 40
    assert cli("resume", "run", "--plugin", stub).exit_code == 0


def test_every_hook_that_a_run_calls_was_tried() -> None:
    questions = {"components", "fade_alpha", "should_advance"}
    assert set(HOOKS) - questions - {"load_state", "on_error", "before_compile"} == set(CALLED)
