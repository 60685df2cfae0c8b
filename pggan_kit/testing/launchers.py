"""Test that launchers keep their contract."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pggan_kit.components import Trial
from pggan_kit.testing.base import Suite
from pggan_kit.testing.support import require


class LauncherSuite(Suite):
    """Runs trials somewhere and survives their deaths.

    Attributes:
        patience: seconds that trials may take to start, and a stopped one to end.
    """

    kind = "launchers"
    patience = 60.0

    def trial(self, name: str, code: str, folder: str) -> Trial:
        """A trial that runs Python code in a folder, where its log lies too."""
        return Trial(name, [sys.executable, "-c", code], Path(folder) / f"{name}.log", Path(folder))

    def launched(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """The exit codes.

        Raises:
            AssertionError: `launch` raises, or does not return one code for each trial.
        """
        try:
            found = list(self.make().launch(trials, ended))
        except Exception as error:
            raise AssertionError(
                f"launch() raises {type(error).__name__} ({error}); a trial's death is an exit code, not an exception"
            ) from error
        require(len(found) == len(trials), f"launch() returns {len(found)} exit codes for {len(trials)} trials")
        return found

    def test_exit_codes(self) -> None:
        """One for each trial, in the order of the trials, whichever ends first; `ended` is told of each, once."""
        codes = {"slow": "import time; time.sleep(0.3)", "wrong": "raise SystemExit(2)", "quick": ""}
        told: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as folder:
            trials = [self.trial(name, code, folder) for name, code in codes.items()]
            found = self.launched(trials, lambda trial, code: told.update({trial.name: code}))
        require(found == [0, 2, 0], f"trials that exit with 0, 2 and 0 are reported as {found}")
        require(told == dict(zip(codes, found, strict=True)), f"of exit codes {found}, `ended` is told {told}")

    def test_place(self) -> None:
        """A trial runs in its folder, and its log has what it writes, after what it wrote before."""
        with tempfile.TemporaryDirectory() as folder:
            here = Path(folder).resolve()
            code = "import os, sys; print(os.getcwd(), flush=True); print('and this', file=sys.stderr)"
            trial = self.trial("place", code, folder)
            for _ in range(2):
                self.launched([trial])
            assert trial.log is not None
            written = trial.log.read_text().split("\n") if trial.log.exists() else []
        wanted = [str(here), "and this"] * 2
        require(
            [line for line in written if line] == wanted, f"the log of a trial in {here} has {written}, not {wanted}"
        )

    def test_dead_trials_run_again(self) -> None:
        """One that is killed is run again and goes on; the others run all the same; wrong input is not tried again."""
        dies = "import os, pathlib; p = pathlib.Path('d'); p.exists() or (p.touch(), os.kill(os.getpid(), 9))"
        wrong = "open('w', 'a').write('x'); raise SystemExit(2)"
        with tempfile.TemporaryDirectory() as folder:
            trials = [
                self.trial("dies", dies, folder),
                self.trial("wrong", wrong, folder),
                self.trial("good", "", folder),
            ]
            found = self.launched(trials)
            tries = len((Path(folder) / "w").read_text())
        require(found[2] == 0, f"beside a trial that was killed, a good one ends in {found[2]}")
        require(found[0] == 0, f"a trial that is killed once ends in {found[0]}: it is not run again")
        require(tries == 1, f"a trial whose input is wrong (exit code 2) is run {tries} times")

    def test_launches_again(self) -> None:
        """One object in two launches: in the second a trial that dies is run again as often as in the first."""
        dies = "import pathlib; p = pathlib.Path('d'); p.exists() or (p.touch(), os.kill(os.getpid(), 9))"
        part = self.make()
        for count in ("first", "second"):
            with tempfile.TemporaryDirectory() as folder:
                found = list(part.launch([self.trial("dies", f"import os; {dies}", folder)], None))
            require(found == [0], f"in the {count} launch a trial that is killed once ends in {found}")

    def test_missing_program(self) -> None:
        """A command that is not there is a failed trial, not an exception."""
        with tempfile.TemporaryDirectory() as folder:
            found = self.launched([Trial("missing", ["no-such-program-here"]), self.trial("good", "", folder)])
        require(found[0] != 0 and found[1] == 0, f"a missing program and a good one end in {found}")

    def test_stops_in_order(self) -> None:
        """Interrupted, it asks what runs to save, waits for it, and raises KeyboardInterrupt."""
        code = (
            "import pathlib, signal, sys, time\n"
            "def save(*_):\n"
            "    time.sleep(0.3); pathlib.Path('saved').touch(); sys.exit(143)\n"
            "signal.signal(signal.SIGTERM, save)\n"
            f"pathlib.Path('begun').touch(); time.sleep({self.patience})"
        )
        with tempfile.TemporaryDirectory() as folder:
            interrupter = threading.Thread(target=self._interrupt, args=(Path(folder) / "begun",))
            interrupter.start()
            raised = False
            # A shell's background jobs ignore SIGINT, and hand that down.
            before = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                self.make().launch([self.trial("saves", code, folder)])
            except KeyboardInterrupt:
                raised = True
            finally:
                interrupter.join()
                signal.signal(signal.SIGINT, before)
            saved = (Path(folder) / "saved").exists()
        require(raised, "a KeyboardInterrupt in launch() is not raised again")
        require(saved, "a KeyboardInterrupt in launch() does not wait for a trial that saves after SIGTERM")

    def _interrupt(self, begun: Path) -> None:
        until = time.monotonic() + self.patience
        while not begun.exists() and time.monotonic() < until:
            time.sleep(0.02)
        # To this process, whose main thread hears it; where no trial has begun, too, lest `launch` wait for ever.
        os.kill(os.getpid(), signal.SIGINT)

    def test_no_trials(self) -> None:
        """Nothing to do is done."""
        require(self.launched([]) == [], "launching no trials returns something")
