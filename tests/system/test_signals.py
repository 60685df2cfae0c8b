"""Asked to stop, by a signal or by `train.time_limit`: real processes, their exit codes, and what can be resumed."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from conftest import STUB
from helpers.forks import fork_command
from helpers.killing import assert_same_run, last
from helpers.patience import PATIENCE_SECONDS

from pggan_kit import hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import TIME_LIMIT_REACHED, Interrupted
from pggan_kit.system.signals import StoppedAtOnce, StopSignals, exit_in_order_on_signals
from pggan_kit.training import measures

SLOW = """\
import sys, time
from pathlib import Path
from pggan_kit import hookimpl

def at(place):
    if "{place}" == place:
        Path("here").touch()
        time.sleep({seconds})

{body}
"""
AT_LOAD = "at('load')"
IN_A_HOOK = "@hookimpl\ndef {hook}(): at('{hook}')"


@pytest.fixture
def interrupted(tiny: Callable[..., str]) -> Callable[..., tuple[int, str]]:
    """`interrupted(place, numbers)`: a process that lingers at a place for 2 s, and gets these signals there.

    Returns its exit code and what it wrote to stderr.
    """

    def run(place: str, *numbers: int, seconds: float = 2.0) -> tuple[int, str]:
        body = AT_LOAD if place == "load" else IN_A_HOOK.format(hook=place)
        Path("slow.py").write_text(SLOW.format(place=place, seconds=seconds, body=body))
        process = fork_command("train", tiny(), "--plugin", STUB, "--plugin", "slow.py", "--run-dir", "run")
        until = time.monotonic() + PATIENCE_SECONDS
        while not Path("here").exists():
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.02)
        for number in numbers:
            time.sleep(0.3)
            process.send_signal(number)
        code = process.wait()
        Path("slow.py").write_text("")
        return code, process.read_errors()

    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGTERM)])
def test_a_signal_amid_a_tick_is_obeyed_after_it(number: int, interrupted: Callable[..., tuple[int, str]]) -> None:
    code, told = interrupted("after_tick", number, seconds=1.0)
    assert code == 128 + number
    assert told.strip() == "error: stopped at images 8 and saved; go on with: pggan-kit resume run"
    assert last(Path("run"))["images"] == 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_training_starts_leaves_nothing(
    number: int, interrupted: Callable[..., tuple[int, str]]
) -> None:
    assert interrupted("load", number, seconds=10.0) == (128 + number, "")
    assert not Path("run").exists()


def test_a_signal_before_the_first_step_leaves_a_run_that_goes_on_from_there(
    interrupted: Callable[..., tuple[int, str]], train: Callable[..., Any]
) -> None:
    code, told = interrupted("before_run", signal.SIGTERM, seconds=1.0)
    assert code == 143 and "stopped at images 0 and saved; go on with: pggan-kit resume run" in told
    resume("run", plugins=[STUB])
    train(run_dir="whole")
    assert_same_run(Path("run"), Path("whole"))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_stops_at_once(second: int, interrupted: Callable[..., tuple[int, str]]) -> None:
    """Without the step's end and without a message; what was saved before is whole."""
    code, told = interrupted("after_step", signal.SIGTERM, second, seconds=2.0 * PATIENCE_SECONDS)
    assert (code, told) == (128 + second, "")
    assert last(Path("run"))["images"] == 0
    assert not list(Path("run").rglob("*.part"))
    assert resume("run", plugins=[STUB]).state.images == 40


def test_a_time_limit_stops_and_saves_by_itself(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process takes one step, as the first already takes too long; the run ends as one that never stopped."""
    now = 0.0
    clock = SimpleNamespace(perf_counter=lambda: now)  # on a busy machine, 0.05 s pass before the first step
    monkeypatch.setattr(measures, "time", clock)

    class Slow:
        @hookimpl
        def after_step(self) -> None:
            nonlocal now
            now += 0.06

    two_stages = "schedule.sizes = (4, 8)"
    with pytest.raises(Interrupted, match=r"^stopped at images 4 and saved; go on with: pggan-kit resume run$") as told:
        train(two_stages, "train.time_limit = 0.05", run_dir="run", plugins=(Slow(),))
    assert told.value.signal is None and told.value.exit_code == TIME_LIMIT_REACHED == 75
    stops = 1
    for _ in range(20):
        try:
            resume("run", plugins=[STUB, Slow()])
        except Interrupted:
            stops += 1
        else:
            break
    assert stops == 5
    train(two_stages, run_dir="whole")
    ours, theirs = last(Path("run")), last(Path("whole"))
    assert ours["images"] == theirs["images"] == 24
    assert_same_run(Path("run"), Path("whole"))


def test_a_time_limit_that_is_over_before_the_first_step_lets_it_be_taken(train: Callable[..., Any]) -> None:
    """A launcher would repeat a process that takes none forever."""
    said = r"train\.time_limit = 1e-06 passed before the first step"
    with pytest.warns(UserWarning, match=said), pytest.raises(Interrupted, match=r"^stopped at images 4 and saved"):
        train("train.time_limit = 1e-6", run_dir="run")
    with pytest.warns(UserWarning, match=said), pytest.raises(Interrupted, match=r"^stopped at images 8 and saved"):
        resume("run", plugins=[STUB])


def test_a_time_limit_has_an_exit_code_of_its_own(tiny: Callable[..., str], cli: Callable[..., Result]) -> None:
    result = cli("train", tiny("train.time_limit = 1e-6"), "--plugin", STUB, "--run-dir", "run")
    assert result.exit_code == 75
    assert "error: stopped at images 4 and saved; go on with: pggan-kit resume run" in result.stderr


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As `nohup` and a shell's background jobs have it; others are handled, and as before afterwards."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        terminate = signal.getsignal(signal.SIGTERM)
        with StopSignals() as signals, exit_in_order_on_signals():
            signal.raise_signal(signal.SIGINT)
            assert signals.received is None
            assert signal.getsignal(signal.SIGTERM) != terminate
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == terminate
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_after_the_last_step_are_reported(train: Callable[..., Any], stub: str) -> None:
    """The first changes nothing; the second ends the process, and the record says that the run is complete."""

    class Asked:
        def __init__(self, times: int) -> None:
            self.times = times

        @hookimpl
        def after_run(self) -> None:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGTERM)

    said = "asked to stop by SIGTERM when all images were trained"
    with pytest.warns(UserWarning, match=said):
        assert train(run_dir="run", plugins=(Asked(1),)).state.images == 40
    with pytest.warns(UserWarning, match=said), pytest.raises(StoppedAtOnce):
        resume("run", plugins=[stub, Asked(2)])
    log = Path("run/log.txt").read_text()
    assert "ended at images 40: finished" in log
    assert "ended at images 40: stopped at once by SIGTERM: all images are trained" in log
