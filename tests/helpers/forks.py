"""Processes that are forks of this one, in which everything that takes seconds to import is imported already.

A test of how a process starts, such as what it imports, runs `python -m pggan_kit` instead.
"""

import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import torch._dynamo  # what torch imports with the first optimizer: once here, and not in each fork
from helpers.patience import PATIENCE_SECONDS

from pggan_kit.cli import main


class Fork:
    """A process with its own signals, limits, exit code and output.

    Args:
        work: What the process does. It ends as a program does: with 0, by `SystemExit`, or with a traceback and 1.

    Attributes:
        returncode: The exit code as `subprocess` gives it, or None until `poll` or `wait` has seen the end.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        self._output = _open_unnamed_file()
        self._errors = _open_unnamed_file()
        self.returncode: int | None = None
        self._child = os.fork()
        if self._child == 0:
            self._run(work)

    def _run(self, work: Callable[[], object]) -> NoReturn:
        code = 1
        try:
            # A fork inherits pytest's files and handlers of signals, and a shell's background jobs ignore SIGINT.
            os.dup2(self._output, 1)
            os.dup2(self._errors, 2)
            sys.stdout = os.fdopen(1, "w", buffering=1)
            sys.stderr = os.fdopen(2, "w", buffering=1)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            torch.set_num_threads(1)
            work()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        if self.returncode is None:
            child, status = os.waitpid(self._child, os.WNOHANG)
            if child:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        until = time.monotonic() + PATIENCE_SECONDS
        while self.poll() is None:
            assert time.monotonic() < until, "the process hangs"
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process, which has not ended."""
        assert self.poll() is None
        os.kill(self._child, number)

    def read_output(self) -> str:
        """Return what the process wrote to stdout."""
        return _read_from_start(self._output)

    def read_errors(self) -> str:
        """Return what the process wrote to stderr."""
        return _read_from_start(self._errors)


def _open_unnamed_file() -> int:
    """Return the descriptor of an empty file that is gone once it is closed."""
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)
    return descriptor


def _read_from_start(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def fork_command(*words: Any) -> Fork:
    """Start `pggan-kit` with these words."""
    return Fork(lambda: main([str(word) for word in words], prog_name="pggan-kit"))


def fork_ranks(count: int, work: Callable[[], object]) -> list[Fork]:
    """Start processes that find each other as those of `torchrun` on one machine do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}

    def join_as(rank: int) -> Callable[[], object]:
        def join_and_work() -> None:
            os.environ |= {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            work()

        return join_and_work

    return [Fork(join_as(rank)) for rank in range(count)]


def run_pytest(folder: Path, *words: Any) -> Fork:
    """Run pytest with these words in a folder to its end."""

    def work() -> NoReturn:
        os.chdir(folder)
        sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *map(str, words)]))

    process = Fork(work)
    process.wait()
    return process
