"""Record in a run's folder how each process that trained there began and ended, and the warnings in between."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pggan_kit.errors import Interrupted, RunError, TrainingError, UnforeseenError, UserError, read_message
from pggan_kit.runs.directory import RunDirectory, read_command_line
from pggan_kit.runs.run import Run
from pggan_kit.system import distributed
from pggan_kit.system.files import explain_damage, read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.provenance import describe_environment
from pggan_kit.system.signals import StoppedAtOnce


class ProcessRecord:
    """A record of this process, within a `with` block that makes or opens a run and trains it.

    `log.txt` gets the beginning, each warning once, and the end, with the traceback of what failed in code; the list
    `processes` of `run.json` gets a row, whose `ended` stays null where the process is killed. Before `attach`, there
    is no folder to write to, and warnings are kept until then. Of several processes that train together, rank 0
    records; the others only log their failures.

    Args:
        overrides: The bindings that the caller gave beside the config.
    """

    def __init__(self, overrides: Sequence[str] = ()) -> None:
        self._row: dict[str, Any] = {
            "command": read_command_line(),
            "overrides": list(overrides),
            "process": os.getpid(),
            "host": platform.node(),
            "started": _format_time(),
            "ended": None,
        }
        self._files: RunDirectory | None = None
        self._run: Run | None = None
        self._waiting: list[str] = []
        self._recorder = _WarningRecorder(self._receive_warning)

    def __enter__(self) -> ProcessRecord:
        self._recorder.begin()
        return self

    def attach(self, files: RunDirectory, distributions: Mapping[str, str | None]) -> None:
        """Record the beginning in a run's folder, which this process has locked; it is unlocked after the end.

        Args:
            files: The folder.
            distributions: Versions of the distributions that the plugins are of, by name.

        Raises:
            RunError: `run.json` cannot be read or written.
        """
        self._files = files
        self._row["distributions"] = dict(distributions)
        distributed.run_on_rank_0(self._record_beginning)

    def follow(self, run: Run) -> None:
        """Record the clock of a run at the end."""
        self._run = run

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.end()
        if self._files is None:
            return
        try:
            # A run that was refused before its first step leaves nothing, or an empty folder. Another run may lie at
            # the path of one whose folder was renamed.
            folder = self._files.locate()
            if folder is not None and folder.is_dir() and not self._files.is_discarded:
                self._record_end(self._files, folder, error)
        finally:
            self._files.unlock()

    def _record_beginning(self) -> None:
        files = self._files
        assert files is not None, "there is a folder"
        environment = describe_environment()
        self._row["environment"] = environment

        # The row of a process that was killed has no end.
        about, rows = _read_rows(files.path)
        if rows and rows[-1].get("ended") is None:
            files.log(
                "run.json has no end of the process before this one: it was killed, the machine stopped, or the disk "
                "was full"
            )
        _write_rows(files.path, about, [*rows, self._row])

        files.log(
            f"began: {self._row['command']} (process {self._row['process']} on {self._row['host']}; pggan_kit "
            f"{environment['pggan_kit']}, torch {environment['torch']}, Python {environment['python']})"
        )
        for text in self._waiting:
            if text not in files.warned:
                files.log(f"warning: {text}")

    def _record_end(self, files: RunDirectory, folder: Path, error: BaseException | None) -> None:
        """Record the end of this process in a run's folder, which the working folder may no longer lead to."""
        outcome = describe_outcome(error)
        if isinstance(error, KeyboardInterrupt) and self._run is not None and self._run.state.is_over:
            outcome += ": all images are trained"
        clock = "" if self._run is None else f" at images {self._run.state.images}"
        if isinstance(error, UnforeseenError):
            error.log = folder / "log.txt"
        if distributed.rank() != 0:
            if error is not None:
                files.log(f"process {distributed.rank()} ended{clock}: {outcome}{_format_traceback(error)}")
            return
        files.log(f"ended{clock}: {outcome}{_format_traceback(error)}")

        # The error that ends a run matters more than the record of it.
        self._row["ended"] = _format_time()
        self._row["outcome"] = outcome
        if self._run is not None:
            self._row["images"] = self._run.state.images
        try:
            about, rows = _read_rows(folder)
            _write_rows(folder, about, [*rows[:-1], self._row])
        except RunError as failure:
            files.log(f"run.json does not say how this process ended: {failure}")

    def _receive_warning(self, text: str) -> None:
        """Log a warning, or keep it until there is a folder."""
        if self._files is None:
            self._waiting.append(text)
        elif distributed.rank() == 0 and text not in self._files.warned:  # the run logs its own warnings itself
            self._files.log(f"warning: {text}")


def describe_outcome(error: BaseException | None) -> str:
    """Return how a process ended, in one line: `finished`, `stopped by SIGTERM: ...`, or `failed: ...`."""
    if error is None:
        return "finished"

    # Stopped from outside.
    message = " ".join(read_message(error).split())
    if isinstance(error, Interrupted):
        if error.signal is None:
            return f"stopped: {message}"
        return f"stopped by {signal.Signals(error.signal).name}: {message}"
    if isinstance(error, StoppedAtOnce):
        return f"stopped at once by {signal.Signals(error.exit_code - 128).name}"
    if isinstance(error, KeyboardInterrupt):
        return "stopped at once by Ctrl-C"

    # Failed: a message for users says it all, any other error needs its class.
    if isinstance(error, (UserError, TrainingError)):
        return f"failed: {message}"
    return f"failed: {type(error).__name__}: {message}"


def _format_traceback(error: BaseException | None) -> str:
    """Return an indented traceback, after a line break; nothing where the message says all there is to say."""
    if error is None or isinstance(error, (UserError, Interrupted, KeyboardInterrupt)):
        return ""
    if isinstance(error, TrainingError):
        if error.__cause__ is None:
            return ""
        error = error.__cause__
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "".join(f"\n    {line}" for line in lines)


def _format_time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _read_rows(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the content of `run.json`, and its rows of processes.

    Raises:
        RunError: It cannot be read, or is damaged.
    """
    path = folder / "run.json"
    with explain_damage(path):
        about = json.loads(read_text(path))
        rows = about.get("processes", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("its processes are no list of rows")
    return about, rows


def _write_rows(folder: Path, about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    content = {**about, "processes": rows}
    write_atomically(folder / "run.json", (json_text(content, indent=1) + "\n").encode())


class _WarningRecorder:
    """A receiver of each `UserWarning` of a block, once, whatever Python's filters do with it.

    It stands before all filters, as the pattern and the category of one that never applies. So it decides
    nothing: who is shown a warning, and whether it is an error, is up to the filters after it.

    Args:
        receive: Function that is called with the text of each warning.
    """

    def __init__(self, receive: Callable[[str], None]) -> None:
        self._receive = receive
        self._catcher = warnings.catch_warnings()
        self._text = ""
        self._recorded: set[str] = set()

    def begin(self) -> None:
        """Receive warnings from now on."""
        self._catcher.__enter__()
        warnings.filters.insert(0, ("ignore", self, self, None, 0))  # type: ignore[attr-defined]

    def end(self) -> None:
        """Receive no more warnings, and restore the filters."""
        self._catcher.__exit__(None, None, None)

    def match(self, text: str) -> bool:
        """Take the text of a warning, as a pattern does; the category comes next."""
        self._text = text
        return True

    def __subclasscheck__(self, category: type[Warning]) -> bool:
        if issubclass(category, UserWarning) and self._text not in self._recorded:
            self._recorded.add(self._text)
            self._receive(self._text)
        return False
