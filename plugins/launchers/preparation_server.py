"""The server of `PreparationServer`: a program that becomes each trial, in a fork of itself.

Only the standard library is imported here: what else a trial finds imported is its preparation's affair.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST_MESSAGE = 1 << 20
"""Maximum bytes of a message between a launcher and its server."""

HELD_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that wait while a process is a server. It ends with its launcher; and a new fork must not miss one."""


def serve(descriptor: int) -> None:
    """Prepare, then start trials until the launcher is gone. Each runs here too, in a fork, up to the program's end.

    Args:
        descriptor: Descriptor of the server's end of the connection to the launcher. Its first message has the entries
            of `sys.path`; the preparation; the seconds between checks for trials that have exited; and the exit codes
            of a trial that can never be started, and of one that cannot be started now.
    """
    with socket.socket(fileno=descriptor) as connection:
        connection.set_inheritable(False)
        message = connection.recv(LARGEST_MESSAGE)
        if not message:
            return
        settings = json.loads(message)
        sys.path[:] = settings["path"]
        exec(compile(settings["preparation"], "<preparation>", "exec"), {"__name__": "__main__"})

        # Else each fork would write once more what the preparation has left in the buffer.
        sys.stdout.flush()
        _require_one_thread()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.Signals[name] for name in HELD_SIGNALS})
        request = _answer_requests(connection, settings["poll_seconds"], settings["start_failed"])
    _run_trial(request, mask, settings["program_missing"], settings["start_failed"])


def _require_one_thread() -> None:
    """End the server if it has threads: they would be missing in its forks, with whatever they hold."""
    # Libraries of linear algebra stop their idle threads before a fork, and start them again when they need them.
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("the preparation of the trials has started threads")


def _answer_requests(connection: socket.socket, poll_seconds: float, start_failed: int) -> dict[str, Any]:
    """Return, in a fork, the request that it was made for. In the server itself this never returns."""
    running: dict[int, int] = {}
    codes: dict[int, int] = {}
    while True:
        for number, child in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del running[number]
                codes[number] = os.waitstatus_to_exitcode(status)
                connection.send(json.dumps([number, codes[number]], allow_nan=False).encode())

        if not select.select([connection], [], [], poll_seconds if running else None)[0]:
            continue
        message = connection.recv(LARGEST_MESSAGE)
        if not message:
            # The launcher has ended; trials that still run go on, as they would without a server.
            os._exit(0)
        request = json.loads(message)
        if "terminate" in request:
            number = request["terminate"]
            if number in running:
                os.kill(running[number], signal.SIGTERM)
            else:
                # An interrupt of the launcher may have come between two of its instructions, with the code in hand.
                connection.send(json.dumps([number, codes[number]], allow_nan=False).encode())
            continue
        try:
            child = os.fork()
        except OSError:
            # There are too many processes, or memory is full: others that run here must not be lost by it.
            number = request["number"]
            codes[number] = start_failed
            connection.send(json.dumps([number, start_failed], allow_nan=False).encode())
            continue
        if child == 0:
            return dict(request)
        running[request["number"]] = child


def _run_trial(request: Mapping[str, Any], mask: Iterable[int], program_missing: int, start_failed: int) -> None:
    """Make this fork what a new process would be, and run the trial's code.

    Args:
        request: The trial, as `PreparationServer.start` describes it.
        mask: The signals that were blocked before the server blocked some.
        program_missing: Exit code where its log or its folder is missing.
        start_failed: Exit code where they cannot be opened now.
    """
    try:
        _enter_place(request["log"], request["folder"])
    except OSError as error:
        print(f"cannot start {sys.executable}: {error.strerror}", file=sys.stderr)
        stays = isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError))
        sys.exit(program_missing if stays else start_failed)
    os.environ.update(request["environment"])

    # Of all that is seeded from the system's entropy, NumPy's generator alone does not seed itself again.
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()

    code, *arguments = request["command"]
    sys.argv = ["-c", *arguments]
    program = types.ModuleType("__main__")
    sys.modules["__main__"] = program
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    exec(compile(code, "<string>", "exec"), vars(program))


def _enter_place(log: str | None, folder: str | None) -> None:
    """Give this process a session, its log and its working directory.

    Raises:
        OSError: The log cannot be written, or there is no such folder.
    """
    os.setsid()
    if log is not None:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    if folder is not None:
        os.chdir(folder)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
