"""Plugins that fail during a run: which end it, which do not, and what is never lost."""

from __future__ import annotations

import collections
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import TINY
from helpers.forks import fork_command
from helpers.patience import PATIENCE_SECONDS

import pggan_kit
from pggan_kit import Component, hookimpl
from pggan_kit.api.generator import load_generator
from pggan_kit.api.train import resume
from pggan_kit.errors import PluginError, RunError, TrainingError
from pggan_kit.plugin_host.contracts import HOOKS
from pggan_kit.runs.checkpoints import Checkpoints
from pggan_plugins.observers import Growth, Progress, Samples, TensorBoard

CALLED = ["before_run", "before_stage", "before_fade", "after_fade", "after_step", "measure_tick", "after_tick"]
CALLED += ["after_stage", "save_state", "after_run"]


def make_failing_observer(hook: str, error: BaseException, critical: bool | None) -> type:
    """Return the class of an observer that records its calls, and fails in a hook.

    Args:
        hook: The hook, which fails once: in its second call, or in its first where a run has only one.
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
            return {"Watcher/n": 1}

        setattr(Watcher, name, hookimpl(record))
    if critical is not None:
        Watcher.critical = critical  # type: ignore[attr-defined]
    return Watcher


def make_row(observer: type) -> Component:
    return Component("observers", "Watcher", observer)


WATCH = "train.observers = [@observers.Watcher()]"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Any:
    """The run of the tiny experiment, without observers."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "tiny.gin").write_text(TINY)
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])


@pytest.fixture(scope="module")
def healthy_calls(tmp_path_factory: pytest.TempPathFactory, stub: str) -> list[str]:
    """The calls of an observer that does not fail."""
    folder = tmp_path_factory.mktemp("healthy")
    (folder / "tiny.gin").write_text(TINY)
    observer: Any = make_failing_observer("none", ValueError(), critical=False)
    plugins = [stub, make_row(observer)]
    pggan_kit.train(folder / "tiny.gin", [WATCH], run_dir=folder / "run", plugins=plugins)
    return list(observer.calls)


@pytest.mark.parametrize("hook", CALLED)
def test_an_observer_that_is_not_critical_is_tried_again_and_the_run_goes_on(
    train: Callable[..., Any], plain: Any, healthy_calls: list[str], hook: str
) -> None:
    observer: Any = make_failing_observer(hook, ValueError("broken"), critical=False)
    with pytest.warns(
        UserWarning, match=rf"train\.observers\.0 failed in its hook {hook}.*ValueError: broken"
    ) as warned:
        run = train(WATCH, plugins=(make_row(observer),))
    assert run.state.images == 40
    said = [str(warning.message) for warning in warned if "broken" in str(warning.message)]
    assert len(said) == 1
    if hook != "after_run":
        assert said[0].endswith("It is tried again at the next tick; the run continues")
    assert "warning: train.observers.0 failed in its hook" in (run.directory / "log.txt").read_text()
    for name, value in plain.state.ema.state_dict().items():
        assert torch.equal(value, run.state.ema.state_dict()[name])
    assert "train.observers.0" in run.checkpoints.load_last().components
    assert observer.calls[-1] == "after_run" and "on_error" not in observer.calls

    # Only the hook that failed is left out until the next tick; before a second `before_run`, all are.
    missed = collections.Counter(healthy_calls) - collections.Counter(observer.calls)
    if hook == "before_run":
        assert observer.calls[:3] == ["before_run", "before_run", "after_tick"]
    else:
        assert set(missed) <= {hook} and missed[hook] <= 1


class Stubborn:
    """An observer that fails in each call."""

    critical = False

    @hookimpl
    def after_step(self) -> None:
        raise OSError(28, "No space left on device")


def test_repeated_failures_are_counted(train: Callable[..., Any]) -> None:
    """It fails in each step, and is tried after ticks only, in 10 of 20: two warnings, and the sum in the log."""
    lines = ["schedule.batch_size = 2", "train.tick = 4", WATCH.replace("Watcher", "Stubborn")]
    with pytest.warns(UserWarning, match="No space left") as warned:
        run = train(*lines, plugins=(Component("observers", "Stubborn", Stubborn),))
    said = [str(warning.message) for warning in warned if "No space left" in str(warning.message)]
    assert len(said) == 2
    assert "(stage 4x4, images 2): OSError" in said[0] and "(failure 10). It is tried again" in said[1]
    log = (run.directory / "log.txt").read_text()
    assert log.count("No space left") == 3
    assert (
        "train.observers.0 failed 10 times, at last: train.observers.0 failed in its hook after_step (stage 16x16"
        in log
    )


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("hook", ["after_step", "save_state"])
def test_a_hook_that_exits_does_not_end_the_run_as_if_it_were_complete(
    train: Callable[..., Any], hook: str, critical: bool
) -> None:
    observer: Any = make_failing_observer(hook, SystemExit(0), critical)
    if critical:
        with pytest.raises(TrainingError, match=rf"train\.observers\.0 failed in its hook {hook}.*: SystemExit: 0"):
            train(WATCH, plugins=(make_row(observer),))
        assert observer.calls[-1] == "on_error"
    else:
        with pytest.warns(UserWarning, match="SystemExit: 0"):
            assert train(WATCH, plugins=(make_row(observer),)).state.images == 40


def test_nor_does_any_other_part_that_exits(tiny: Callable[..., str], cli: Callable[..., Result], stub: str) -> None:
    Path("exits.py").write_text(EXITS)
    result = cli("train", tiny("train.loss = @losses.Exits()"), "--plugin", stub, "--plugin", "exits.py")
    assert result.exit_code == 1
    assert "a part of the run called sys.exit(0) at images 8 (stage 8x8)" in " ".join(result.stderr.split())


EXITS = """
import sys
from pggan_kit import Component, hookimpl
from pggan_plugins.losses import Hinge

class Exits(Hinge):
    def generator(self, fake, real):
        if fake.score.shape[0] and self.stage:
            sys.exit(0)
        return super().generator(fake, real)

    stage = 0

    @hookimpl
    def before_stage(self, stage):
        self.stage = stage.index

@hookimpl
def components():
    return [Component("losses", "Exits", Exits)]
"""


Pair = collections.namedtuple("Pair", "left right")

UNREADABLE = {
    "a path": ({"folder": Path("a")}, r"save_state\(\)\['folder'\] is a pathlib\.\w+"),
    "a NumPy number": ({"best": [np.float64(1.0)]}, r"save_state\(\)\['best'\]\[0\] is a numpy\.float64"),
    "a named tuple": ({"pair": Pair(1, 2)}, r"save_state\(\)\['pair'\] is a \w+\.Pair"),
    "no dict": ([1, 2], r"save_state\(\) is a list and not a dict"),
    "nothing": (None, r"save_state\(\) is a NoneType and not a dict"),
}


@pytest.mark.parametrize("critical", [True, False])
@pytest.mark.parametrize("case", UNREADABLE)
def test_a_state_that_cannot_be_read_back_is_refused_before_the_first_step(
    train: Callable[..., Any], case: str, critical: bool
) -> None:
    value, phrase = UNREADABLE[case]
    observer: Any = make_failing_observer("none", ValueError(), critical)
    observer.save_state = hookimpl(lambda self: value)
    with pytest.raises(
        PluginError, match=rf"^train\.observers\.0: {phrase}, which cannot be read back from a checkpoint"
    ):
        train(WATCH, plugins=(make_row(observer),), run_dir="run")
    assert "after_step" not in observer.calls
    assert not Path("run").exists(), "nothing was trained, so nothing is left"


@pytest.mark.parametrize("critical", [True, False])
def test_a_state_that_becomes_unreadable_later_spoils_no_checkpoint(
    train: Callable[..., Any], stub: str, critical: bool
) -> None:
    observer: Any = make_failing_observer("none", ValueError(), critical)
    observer.save_state = hookimpl(lambda self, run: {"at": np.int64(8) if run.state.images == 16 else 8})
    row = make_row(observer)
    if critical:
        with pytest.raises(PluginError, match=r"save_state\(\)\['at'\] is a numpy\.int64"):
            train(WATCH, plugins=(row,), run_dir="run")
        assert Checkpoints(Path("run/checkpoints")).load_last().images == 8
    else:
        with pytest.warns(UserWarning, match=r"failed in its hook save_state.*numpy\.int64"):
            train(WATCH, "train.keep = 9", plugins=(row,), run_dir="run")
        checkpoints = Checkpoints(Path("run/checkpoints"))
        states = {entry.images: checkpoints.load(entry).components for entry in checkpoints.read_entries()}
        assert [images for images, state in states.items() if "train.observers.0" not in state] == [16]
        assert resume("run", plugins=[stub, row]).state.images == 40


class OddRate:
    """An optimizer whose learning rate is a number of NumPy."""

    def build(self, params: Any, stage: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(params, lr=np.float64(0.1))


class OddFingerprint:
    """A data set whose fingerprint is no text."""

    classes = 0

    def __len__(self) -> int:
        return 12

    def image(self, i: int) -> np.ndarray:
        return np.zeros((16, 16, 1), np.uint8)

    def label(self, i: int) -> int:
        return 0

    def fingerprint(self) -> Any:
        return 7


def test_other_values_that_checkpoints_hold_are_checked_before_the_first_step(train: Callable[..., Any]) -> None:
    rate = Component("optimizers", "Odd", OddRate)
    with pytest.raises(PluginError, match=r"in it optimizers\['generator'\].*\['lr'\] is a numpy\.float64"):
        train("train.generator_optimizer = @optimizers.Odd()", plugins=(rate,))
    data = Component("datasets", "Odd", OddFingerprint)
    with pytest.raises(
        PluginError, match=r"fingerprint\(\) of the data set OddFingerprint must return a string, .* int"
    ):
        train("train.dataset = @datasets.Odd()", plugins=(data,))
    assert not list(Path("runs").glob("[!.]*"))


@pytest.mark.parametrize(("hook", "critical"), [*((hook, True) for hook in CALLED), ("after_step", None)])
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
    with pytest.warns(
        UserWarning, match=r"cannot write .*growth\.gif.*tried again at the next tick; the run continues"
    ):
        assert train(*lines, plugins=(Spoiler(),)).state.images == 40


def test_a_plugin_that_fails_in_after_run_loses_nothing(train: Callable[..., Any], plain: Any, stub: str) -> None:
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
    questions = {"components", "importers", "fade_alpha", "should_advance", "should_end"}
    assert set(HOOKS) - questions - {"load_state", "on_error", "before_compile"} == set(CALLED)
