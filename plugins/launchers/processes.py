"""The process of a trial: how it is started and stopped, and whether it is run again after an exit."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pggan_kit import Trial

WRONG_INPUT = 2
"""Exit code of a trial whose input is wrong: running it again would not help."""

TIME_LIMIT_REACHED = 75
"""Exit code of a trial that `train.time_limit` has stopped: it has saved, and goes on when it is run again."""

PROGRAM_MISSING = 127
"""Exit code of a program that does not exist, as in a shell."""

FINAL = (0, WRONG_INPUT, PROGRAM_MISSING)
"""Exit codes after which a trial is not run again, however it came to exit."""

START_FAILED = 126
"""Exit code of a trial that could not be started now: there were too many processes, or memory or the disk was full."""

KILLED = -9
"""Exit code of a process that was killed, or is lost with its machine. Windows has no signal of this number."""

POLL_SECONDS = 0.05
"""Seconds between checks for processes that have exited."""


def count_retries_left(code: int, retries: int) -> int | None:
    """Return the retries that are left when a trial is run again after an exit; None if it is not run again.

    Args:
        code: The exit code of the trial's process.
        retries: The retries that were left before.
    """
    if code in FINAL:
        return None
    # The run is further than it was: no failure.
    if code == TIME_LIMIT_REACHED:
        return retries
    return retries - 1 if retries else None


def start_process(
    trial: Trial,
    environment: Mapping[str, str],
    before: Callable[[], None] | None = None,
    own_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a trial's process.

    Args:
        trial: The trial.
        environment: The environment variables of the process.
        before: A function called in the new process before the program takes over.
        own_session: Whether the process gets a session of its own. A terminal's Ctrl-C then reaches this process alone,
            which passes it to each trial, once.

    Raises:
        OSError: A program that does not exist or cannot be started now, which the trial's log then says too, or a log
            that cannot be written; see `choose_start_code`.
    """
    # The new process has the log open for itself; this one closes it again.
    with contextlib.ExitStack() as files:
        output = files.enter_context(trial.log.open("ab")) if trial.log is not None else None
        try:
            return subprocess.Popen(
                list(trial.command),
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                cwd=trial.folder,
                env=environment,
                start_new_session=own_session,
                preexec_fn=before,
            )
        except OSError as error:
            if output is not None:
                output.write(f"cannot start {trial.command[0]}: {error.strerror}\n".encode())
            raise


def choose_start_code(error: OSError) -> int:
    """Return the exit code of a trial that could not be started, by what `start_process` raised.

    What is missing stays so; other causes pass, and the trial may be started again.
    """
    stays = isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)) or error.errno == errno.ENOEXEC
    return PROGRAM_MISSING if stays else START_FAILED


class Process(Protocol):
    """A process as launchers need it; `subprocess.Popen` is one."""

    def poll(self) -> int | None:
        """Return the exit code, negative for the number of a signal, or None while the process runs."""

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""

    def terminate(self) -> None:
        """Ask the process to stop."""


def stop_processes(processes: Sequence[Process]) -> None:
    """Send SIGTERM to processes and wait for them.

    Each further KeyboardInterrupt sends it again, upon which a trial exits without saving.
    """
    while any(process.poll() is None for process in processes):
        for process in processes:
            process.terminate()
        with contextlib.suppress(KeyboardInterrupt):
            for process in processes:
                process.wait()
