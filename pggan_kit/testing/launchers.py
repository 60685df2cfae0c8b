"""Test that launchers keep their contract."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pggan_kit.components import Trial
from pggan_kit.system.signals import signal_this_process
from pggan_kit.testing.suite import Suite
from pggan_kit.testing.support import require

KILLED_ONCE = """\
import os, pathlib
begun = pathlib.Path('begun')
if not begun.exists():
    begun.touch()
    os.kill(os.getpid(), 9)
"""
"""Python code that kills itself the first time it runs in a folder."""

COUNTED_WRONG_INPUT = "open('tries', 'a').write('x'); raise SystemExit(2)"
"""Python code that notes each try, and exits as for wrong input."""

SESSIONS = 6
"""Processes that the trial of `GOES_ON` takes: more than a launcher's retries by default."""

GOES_ON = f"""\
import pathlib
sessions = pathlib.Path('sessions')
with sessions.open('a') as file:
    file.write('x')
raise SystemExit(0 if len(sessions.read_text()) == {SESSIONS} else 75)
"""
"""Python code that exits as at a time limit (`train.time_limit`) in each process but the last."""

SAVES_WHEN_STOPPED = """\
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.3)
    pathlib.Path('saved').touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path('begun').touch()
time.sleep({patience})
"""
"""Python code that takes a while to save after SIGTERM."""


class LauncherSuite(Suite):
    """Launchers run trials somewhere, and outlive trials that are killed.

    Attributes:
        patience: Seconds that trials may take to start, and a stopped one to end.
    """

    kind = "launchers"
    patience = 60.0

    def trial(self, name: str, code: str, folder: str) -> Trial:
        """Return a trial that runs Python code in a folder, where its log is too."""
        return Trial(name, [sys.executable, "-c", code], Path(folder) / f"{name}.log", Path(folder))

    def launch_trials(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Launch trials and return their exit codes.

        Raises:
            AssertionError: `launch` raises, or does not return one code for each trial.
        """
        try:
            codes = list(self.make().launch(trials, ended))
        except Exception as error:
            raise AssertionError(
                f"launch() raises {type(error).__name__} ({error}); a failed trial is an exit code, not an exception"
            ) from error
        require(len(codes) == len(trials), f"launch() returns {len(codes)} exit codes for {len(trials)} trials")
        return codes

    def test_exit_codes(self) -> None:
        """Require one code for each trial, in the order of the trials, and one call of `ended` for each."""
        programs = {"slow": "import time; time.sleep(0.3)", "wrong": "raise SystemExit(2)", "quick": ""}
        reported: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            trials = [self.trial(name, code, folder) for name, code in programs.items()]
            codes = self.launch_trials(trials, lambda trial, code: reported.update({trial.name: code}))
        require(codes == [0, 2, 0], f"trials that exit with 0, 2 and 0 are reported as {codes}")
        require(
            reported == dict(zip(programs, codes, strict=True)),
            f"the exit codes are {codes}, and `ended` is called with {reported}",
        )

    def test_place(self) -> None:
        """Require a trial to run in its folder, and its log to have its output, after that of earlier launches."""
        code = "import os, sys; print(os.getcwd(), flush=True); print('and this', file=sys.stderr)"
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder).resolve()
            trial = self.trial("place", code, folder)
            for _ in range(2):
                self.launch_trials([trial])
            assert trial.log is not None
            text = trial.log.read_text() if trial.log.exists() else ""
        lines = [line for line in text.split("\n") if line]
        wanted = [str(here), "and this"] * 2
        require(lines == wanted, f"the log of a trial in {here} has {lines}, not {wanted}")

    def test_dead_trials_run_again(self) -> None:
        """Require a killed trial to run again, others to run all the same, and wrong input not to be tried again."""
        with tempfile.TemporaryDirectory() as folder:
            trials = [
                self.trial("killed", KILLED_ONCE, folder),
                self.trial("wrong", COUNTED_WRONG_INPUT, folder),
                self.trial("good", "", folder),
            ]
            killed, _, good = self.launch_trials(trials)
            tries = len((Path(folder) / "tries").read_text())
        require(good == 0, f"beside a trial that was killed, a good one ends with {good}")
        require(killed == 0, f"a trial that is killed once ends with {killed}: it is not run again")
        require(tries == 1, f"a trial whose input is wrong (exit code 2) is run {tries} times")

    def test_time_limits(self) -> None:
        """Require a trial that reaches its time limit (exit code 75) to go on until it is done, however often."""
        with tempfile.TemporaryDirectory() as folder:
            codes = self.launch_trials([self.trial("goes-on", GOES_ON, folder)])
            sessions = len((Path(folder) / "sessions").read_text())
        require(
            (codes, sessions) == ([0], SESSIONS),
            f"a trial that exits with 75 before its process number {SESSIONS} ends with {codes} after {sessions}: "
            "reaching the time limit is no failure, and takes none of the retries",
        )

    def test_launches_again(self) -> None:
        """Require a second launch by one object to run a killed trial again as often as the first."""
        launcher = self.make()
        for number in ("first", "second"):
            with tempfile.TemporaryDirectory() as folder:
                codes = list(launcher.launch([self.trial("killed", KILLED_ONCE, folder)], None))
            require(codes == [0], f"in the {number} launch a trial that is killed once ends with {codes}")

    def test_missing_program(self) -> None:
        """Require a missing command to be a failed trial, not an exception."""
        with tempfile.TemporaryDirectory() as folder:
            trials = [Trial("missing", ["no-such-program-here"]), self.trial("good", "", folder)]
            codes = self.launch_trials(trials)
        missing, good = codes
        require(missing != 0 and good == 0, f"a missing program and a good one end with {codes}")

    def test_stops_in_order(self) -> None:
        """Require an interrupted launch to stop its trials, wait until they have saved, and raise KeyboardInterrupt."""
        code = SAVES_WHEN_STOPPED.format(patience=self.patience)
        raised = False
        with tempfile.TemporaryDirectory() as folder:
            returned = threading.Event()
            interrupter = threading.Thread(target=self._interrupt, args=(Path(folder) / "begun", returned))
            interrupter.start()

            # A shell's background jobs ignore SIGINT, and pass that on to their children.
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                self.make().launch([self.trial("saves", code, folder)])
            except KeyboardInterrupt:
                raised = True
            finally:
                # A launch that returns by itself must not leave an interrupt to pytest.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                returned.set()
                interrupter.join()
                signal.signal(signal.SIGINT, before)
            saved = (Path(folder) / "saved").exists()
        require(raised, "a KeyboardInterrupt in launch() is not raised again")
        require(saved, "a KeyboardInterrupt in launch() does not wait for a trial that saves after SIGTERM")

    def _interrupt(self, begun: Path, returned: threading.Event) -> None:
        """Interrupt this process once a trial has begun, unless the launch has returned."""
        until = time.monotonic() + self.patience
        while not begun.exists() and time.monotonic() < until:
            if returned.wait(0.02):
                return

        # Python raises KeyboardInterrupt in the main thread. Where no trial has begun, `launch` must not wait forever.
        signal_this_process(signal.SIGINT)

    def test_no_trials(self) -> None:
        """Require no exit codes for no trials."""
        require(self.launch_trials([]) == [], "launching no trials returns something")
