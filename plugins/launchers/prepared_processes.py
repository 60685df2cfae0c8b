"""Processes that begin with what takes long to import: forks of a server, which has imported it once.

A fork is a process like any other, with its own session, log, signals and exit code. Nothing has run in the server but
the trials' preparation, so each trial begins in the state in which a new process is after that.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit import Trial
from pggan_plugins.launchers.preparation_server import LARGEST_MESSAGE
from pggan_plugins.launchers.processes import POLL_SECONDS, PROGRAM_MISSING, START_FAILED

SERVER = Path(__file__).with_name("preparation_server.py")
"""The program of the server. It is run, not imported, which would import all that this package imports."""

LOST = 256
"""Code of a trial whose end nobody saw, because its server has been killed. No process exits with it."""


def find_preparation(trials: Sequence[Trial]) -> str | None:
    """Return the preparation that all trials have in common; None if they have none, or a fork could not run them."""
    first = trials[0].preparation if trials else None
    # Forks of what has loaded the frameworks of macOS are not safe.
    if first is None or sys.platform != "linux":
        return None
    if all(trial.preparation == first and _is_code(trial.command) for trial in trials):
        return first
    return None


def _is_code(command: Sequence[str]) -> bool:
    """Return whether a command is Python code for this interpreter."""
    return list(command[:2]) == [sys.executable, "-c"] and len(command) > 2


class PreparationServer:
    """A process that runs a preparation, and then starts each trial as a fork of itself.

    Args:
        preparation: Python code.
        environment: The environment variables of the server.

    Raises:
        OSError: Its process cannot be started.

    Attributes:
        has_ended: Whether the server is gone: its preparation failed or began threads, or it was killed.
    """

    def __init__(self, preparation: str, environment: Mapping[str, str]) -> None:
        self.has_ended = False
        self._environment = environment
        self._codes: dict[int, int] = {}
        self._count = 0
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # The rest is a message: in a command line, all of it would stand in the list of processes for each trial.
            try:
                self._process = subprocess.Popen(
                    [sys.executable, str(SERVER), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            except OSError:
                self._connection.close()
                raise
        self._send(
            {
                # Its imports are those of this process, wherever the working directory is.
                "path": [str(entry) for entry in sys.path],
                "preparation": preparation,
                "poll_seconds": POLL_SECONDS,
                "program_missing": PROGRAM_MISSING,
                "start_failed": START_FAILED,
            }
        )

    def start(self, trial: Trial, environment: Mapping[str, str]) -> PreparedProcess | None:
        """Start a trial, as soon as the preparation is done; return None if the server is gone.

        Args:
            trial: A trial with the server's preparation.
            environment: The environment variables of the process, which has at least those of the server.
        """
        number = self._count
        self._count += 1
        request = {
            "number": number,
            "command": list(trial.command[2:]),
            "log": None if trial.log is None else str(trial.log),
            "folder": None if trial.folder is None else str(trial.folder),
            "environment": {name: value for name, value in environment.items() if self._environment.get(name) != value},
        }
        return PreparedProcess(self, number) if self._send(request) else None

    def terminate(self, number: int) -> None:
        """Send SIGTERM to a trial. The server knows whether the process still has its id."""
        self._send({"terminate": number})

    def find_code(self, number: int) -> int | None:
        """Return the exit code of a trial, None while it runs, or LOST."""
        # All messages that have come so far; an empty one says that the server has ended.
        while not self.has_ended:
            try:
                message = self._connection.recv(LARGEST_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                message = b""
            if message:
                ended, code = json.loads(message)
                self._codes[ended] = code
            else:
                self.has_ended = True
        return self._codes.get(number, LOST if self.has_ended else None)

    def close(self) -> None:
        """End the server, whose trials have ended."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _send(self, request: Mapping[str, Any]) -> bool:
        """Send a request; return False if the server is gone."""
        try:
            self._connection.send(json.dumps(request, allow_nan=False).encode())
        except ConnectionError:
            return False
        return True


class PreparedProcess:
    """A trial that a server has started, with the methods of `subprocess.Popen` that launchers need.

    Args:
        server: The server.
        number: The server's number of the trial.
    """

    def __init__(self, server: PreparationServer, number: int) -> None:
        self._server = server
        self._number = number

    def poll(self) -> int | None:
        """Return the exit code, negative for the number of a signal, or None while the process runs."""
        return self._server.find_code(self._number)

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        while (code := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return code

    def terminate(self) -> None:
        """Ask the process to stop."""
        self._server.terminate(self._number)
