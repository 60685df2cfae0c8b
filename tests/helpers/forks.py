"""Commands of `pggan-kit` in forks of this process, which has imported torch: they begin at once, and can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.ablation import trial as trials
from pggan_kit.cli import main
from pggan_kit.components import Trial
from pggan_plugins.launchers import local

CRASHED = 70
"""Exit code of a fork that ends in a traceback."""


class Fork:
    """A command in a process of its own, with the methods of `subprocess.Popen` that launchers use.

    Args:
        arguments: Arguments of `pggan-kit`.
        log: File that its output is appended to; None to discard it.
        environment: Environment variables that differ from those of this process.
        before: Function that is called in the new process first.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        log: Path | None = None,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            code = CRASHED
            try:
                _enter_process(log or Path(os.devnull), environment or {})
                if before is not None:
                    before()
                code = _run_command([str(argument) for argument in arguments])
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """Wait until the process has ended, and return its exit code."""
        until = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("pggan-kit", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to stop."""
        self.send_signal(signal.SIGTERM)


def _enter_process(log: Path, environment: Mapping[str, str]) -> None:
    """Give a fork what a new process has: a session, files, signals and an environment of its own."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # A lock that the other process holds must not outlive it here.
    os.closerange(3, 4096)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    torch.set_num_threads(1)


def _run_command(arguments: list[str]) -> int:
    """Return the exit code of a command."""
    sys.argv = ["pggan-kit", *arguments]
    try:
        main(arguments)
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
        return CRASHED
    return 0


def launch_in_forks() -> None:
    """Let `launchers.Local` of this process start trials as forks, which look for their `ablate` more often."""
    trials.WATCH_SECONDS = 0.1

    def start(trial: Trial, environment: Mapping[str, str], before: Callable[[], None] | None = None) -> Fork:
        # What follows `python -c CODE` is the command line.
        return Fork(trial.command[3:], trial.log, environment, before)

    local.start_process = start  # type: ignore[assignment]


def wait_until(condition: Callable[[], bool], process: Fork | None = None) -> None:
    """Wait until a condition holds; a process that ends before is an error."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        assert process is None or process.poll() is None, f"the process ended with {process.returncode}"
        time.sleep(0.01)
