"""Processes that a launcher runs for an owner, such as `ablate`: their command, their files, and their end with it."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pggan_kit.components import Trial
from pggan_kit.errors import Interrupted, PluginError
from pggan_kit.plugin_host.plugin_files import RecordedFile, locate_plugin_file
from pggan_kit.system.locks import hold_when_free, is_locked
from pggan_kit.system.processes import write_command
from pggan_kit.system.signals import StoppedAtOnce, signal_this_process

PREPARATION = """\
from pggan_kit.cli.base import limit_spinning
limit_spinning()
import torch._dynamo
import {module}
"""
"""Python code that imports what all trials import, which takes seconds: torch loads `_dynamo` with the first optimizer.
Plugins are left to the trial."""

WATCH_SECONDS = 1.0
"""Seconds between a process's looks at whether its owner still runs."""

Say = Callable[[str], None]
"""Function that shows one line."""


def make_process(name: str, arguments: Sequence[str], plugins: Iterable[str], log: Path, preparation: str) -> Trial:
    """Return a command of `pggan-kit` as a launcher runs it: in a new process, on this machine or another.

    Args:
        name: Name for people.
        arguments: The command and its arguments.
        plugins: Plugin files that the command names, because the user of this process named them too.
        log: File that the output is appended to.
        preparation: See `Trial`.
    """
    command = write_command(*arguments)
    for path in plugins:
        command += ["--plugin", path]
    return Trial(name, command, log, Path.cwd(), preparation)


@contextlib.contextmanager
def hold_processes(lock: Path) -> Iterator[None]:
    """Let processes run within a block: those that are still running after it, or after this process, stop.

    Args:
        lock: File whose lock is held meanwhile.
    """
    # Only processes that look whether it is held could hold it, each for an instant.
    with hold_when_free(lock, lambda holder: None):
        yield


@contextlib.contextmanager
def keep_finished_trials() -> Iterator[None]:
    """Turn a signal that stops the owner of trials within a block into an error that says how to continue.

    Raises:
        Interrupted: A signal stopped it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        number: int = signal.SIGINT
        if isinstance(error, StoppedAtOnce):
            number = error.exit_code - 128
        raise Interrupted(
            number, "stopped; finished trials are kept, and the same command continues with the others"
        ) from None


@contextlib.contextmanager
def stop_with_owner(lock: Path, owner: str, say: Say) -> Iterator[None]:
    """Stop this process as SIGTERM does, once nobody holds the lock of its owner, within a block.

    The kernel releases that lock however the owner ends, and on whichever machine: no launcher has to see to it.

    Args:
        lock: The file that `hold_processes` holds.
        owner: The owner's name, for the message.
        say: Function that is called with one line before the process stops.
    """
    over = threading.Event()

    def watch() -> None:
        while is_locked(lock):
            if over.wait(WATCH_SECONDS):
                return
        say(f"the `{owner}` that this trial belongs to has ended: stopping")
        signal_this_process(signal.SIGTERM)

    # A daemon: it must not keep a process alive that has ended its work.
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def list_recorded_files(
    record: Path, sha256: Mapping[str, str], named: Sequence[str | Path], command: str
) -> list[RecordedFile]:
    """Return the plugin files of a plan, each with the content that it must have.

    Args:
        record: The file that the plan comes from, for error messages.
        sha256: SHA-256 of each file, by its path.
        named: Files that the user named.
        command: The command that begins such a plan, for error messages.

    Raises:
        PluginError: A path is relative, or has no SHA-256; or a named file is not in the plan.
    """
    # A file that the user named may run, even if it was never named on this machine before.
    named_paths = {locate_plugin_file(path) for path in named}
    remedy = f"begin from scratch with the new one: {command} --out FOLDER"
    files = []
    for text, value in sha256.items():
        path = Path(text)
        files.append(RecordedFile(path, value, record, remedy, path in named_paths))

    unknown = named_paths - {file.path for file in files}
    for path in sorted(unknown):
        raise PluginError(f"--plugin {path}: {record} names no such plugin file")
    return files
