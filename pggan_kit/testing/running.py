"""The suites of observers and of launchers: what stands around a run."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from pggan_kit.testing.base import Suite, TrainedSuite, summary, train_tiny
from pggan_kit.testing.support import equal, require


class ObserverSuite(TrainedSuite):
    """Watches a run through hooks and changes nothing in it."""

    kind = "observers"

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.observers`."""
        return {"observers": [part]}

    def test_changes_nothing(self) -> None:
        """A run with it and one without end in the same weights, to the bit."""
        part, name = self.part()
        with tempfile.TemporaryDirectory() as watched, tempfile.TemporaryDirectory() as alone:
            with_it = summary(train_tiny(part, name, Path(watched), self.chosen(part)))
            without = summary(train_tiny(object(), "nobody", Path(alone), {}))
        require(
            equal(with_it, without), f"a run with {name} ends in other weights than one without: it disturbs training"
        )


class LauncherSuite(Suite):
    """Runs trials somewhere and survives their deaths."""

    kind = "launchers"

    def trial(self, code: str) -> list[str]:
        """A command line that runs Python code."""
        return [sys.executable, "-c", code]

    def test_exit_codes(self) -> None:
        """One for each trial, in the order of the trials, whichever ends first."""
        trials = [self.trial("import time; time.sleep(0.3)"), self.trial("raise SystemExit(3)"), self.trial("")]
        found = list(self.make().launch(trials))
        require(found == [0, 3, 0], f"trials that exit with 0, 3 and 0 are reported as {found}")

    def test_survives_a_death(self) -> None:
        """A trial that is killed does not take the others with it."""
        killed = self.trial("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        with tempfile.TemporaryDirectory() as folder:
            done = Path(folder) / "done"
            after = self.trial(f"open({str(done)!r}, 'w')")
            try:
                found = list(self.make().launch([killed, after]))
            except Exception as error:
                raise AssertionError(f"a killed trial makes launch() raise {type(error).__name__}: {error}") from error
            require(done.exists(), "after a trial was killed, the next one was not run")
        require(len(found) == 2 and found[0] != 0 and found[1] == 0, f"a killed trial and a good one end in {found}")

    def test_missing_program(self) -> None:
        """A command that is not there is a failed trial, not an exception."""
        try:
            found = list(self.make().launch([["no-such-program-here"], self.trial("")]))
        except Exception as error:
            raise AssertionError(
                f"a program that is not there makes launch() raise {type(error).__name__}: {error}"
            ) from error
        require(len(found) == 2 and found[0] != 0 and found[1] == 0, f"a missing program and a good one end in {found}")

    def test_no_trials(self) -> None:
        """Nothing to do is done."""
        found = list(self.make().launch([]))
        require(found == [], f"launching no trials returns {found}, not []")
