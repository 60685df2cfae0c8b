"""A launcher of your own: here one trial after the other, on this machine."""

import subprocess
from collections.abc import Callable, Sequence

from pggan_kit import Component, Trial, check_at_least, hookimpl

NOT_THERE = 127  # the exit code of a program that is not there, as a shell has it


class Mine:
    """Runs trials one by one; one that dies is run again.

    Args:
        retries: how often, at least 0.

    Raises:
        ValueError: a number below 0.
    """

    def __init__(self, retries: int = 2) -> None:
        check_at_least("retries", retries, 0)
        self.retries = retries

    def launch(self, trials: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        """The last exit code of each trial: 0 is done, 2 wrong input, anything else a death."""
        codes = []
        for trial in trials:
            for _ in range(1 + self.retries):
                code = self._run(trial)
                if code in (0, 2, NOT_THERE):
                    break
            codes.append(code)
            if ended is not None:
                ended(trial, code)
        return codes

    def _run(self, trial: Trial) -> int:
        with open(trial.log or "/dev/null", "ab") as log:
            try:
                process = subprocess.Popen(
                    list(trial.command), cwd=trial.folder, stdout=log, stderr=log, start_new_session=True
                )
            except OSError:
                return NOT_THERE
            try:
                return process.wait()
            except BaseException:
                process.terminate()  # it saves what it has
                process.wait()
                raise


@hookimpl
def components() -> list[Component]:
    """What configs may name: `@launchers.Mine()`."""
    return [Component("launchers", "Mine", Mine)]
