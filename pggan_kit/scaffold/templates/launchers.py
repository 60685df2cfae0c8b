"""A launcher of your own: here one trial after another, on this machine."""

import os
import subprocess
from collections.abc import Callable, Sequence

from pggan_kit import Component, Trial, check_at_least, hookimpl

DONE = 0  # the exit code of a trial that has ended
WRONG_INPUT = 2  # the exit code of a trial that would fail again
TIME_LIMIT = 75  # the exit code of a trial that has saved at its time limit, and goes on when it is run again
NOT_FOUND = 127  # the exit code of a program that does not exist, as in a shell


class Mine:
    """Runs trials one by one; a trial that fails is run again.

    Args:
        retries: Number of times that a trial is run again, at least 0.

    Raises:
        ValueError: The number is below 0.
    """

    def __init__(self, retries: int = 2) -> None:
        check_at_least("retries", retries, 0)
        self.retries = retries

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """Run all trials, call `ended` after each, and return the last exit code of each: 0 is done, 2 wrong input."""
        codes = []
        for trial in trials:
            retries = self.retries
            while True:
                code = self._run(trial)
                if code == TIME_LIMIT:
                    continue

                # Another attempt helps only if the trial itself failed.
                if code in (DONE, WRONG_INPUT, NOT_FOUND) or retries == 0:
                    break
                retries -= 1

            codes.append(code)
            if ended is not None:
                ended(trial, code)
        return codes

    def _run(self, trial: Trial) -> int:
        """Run a trial once, and return its exit code."""
        with open(trial.log or os.devnull, "ab") as log:
            # In a session of its own, a trial does not receive the Ctrl-C that stops this process.
            try:
                process = subprocess.Popen(
                    list(trial.command), cwd=trial.folder, stdout=log, stderr=log, start_new_session=True
                )
            except OSError:
                return NOT_FOUND

            try:
                return process.wait()
            except BaseException:
                process.terminate()  # the trial saves its state before it exits
                process.wait()
                raise


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@launchers.Mine()`."""
    return [Component("launchers", "Mine", Mine)]
