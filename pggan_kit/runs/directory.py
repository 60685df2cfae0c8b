"""Make, lock, read and write the directory of a run."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError, quote_path
from pggan_kit.runs.checkpoints import KEEP, Checkpoints, Say
from pggan_kit.system import distributed
from pggan_kit.system.files import open_regular, read_text, write_atomically
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import LOCK, RunLock
from pggan_kit.system.provenance import describe_environment

ROOT = Path("runs")

LONGEST_NAME = 60
"""Maximum characters of a config's name in a run's: with four bytes each they still fit a file name."""


class RunDirectory:
    """The files of a run.

    `run.json` (plugins, overrides, environment), `config.gin` (self-contained), `operative.gin`, `log.txt`,
    `stats.jsonl`, `checkpoints/`, and what observers add.

    Attributes:
        path: the folder.
        warned: the warnings that this process has written to `log.txt`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = JsonLines(path / "stats.jsonl")
        self._lock: RunLock | None = None
        self.warned: set[str] = set()

    @classmethod
    def create(cls, path: Path | None, name: str) -> RunDirectory:
        """Make a new directory and lock it: `path`, or the next number under `runs/`, as `runs/00007-mnist`.

        Args:
            path: an empty folder, or one that is yet to be made.
            name: the config's name; characters that may not stand in a file name become a dash.

        Raises:
            RunError: `path` is not empty, cannot be made, or another process has just taken it.
        """
        try:
            if path is None:
                files = cls(_make_next_folder(name))
            elif path.exists() and not path.is_dir():
                raise RunError(f"--run-dir {path} is not empty; name another")
            else:
                files = cls(path)
            files.path.mkdir(parents=True, exist_ok=True)

            # Checked before the lock, which writes a file; and after it, since another process may have been faster.
            files._require_empty()
            files.lock()
            try:
                files._require_empty()
            except RunError:
                files.unlock()
                raise
        except OSError as error:
            raise RunError(f"cannot make a run directory at {path or ROOT}: {error.strerror}") from error
        return files

    def _require_empty(self) -> None:
        if all(entry.name == LOCK for entry in self.path.iterdir()):
            return
        problem = "is not empty"
        if (self.path / "run.json").exists():
            problem = "already holds a run"
        raise RunError(f"--run-dir {self.path} {problem}; name another, or `pggan-kit resume {quote_path(self.path)}`")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Return an existing run's directory, not locked.

        Raises:
            RunError: there is no run in it.
        """
        if not (path / "run.json").is_file():
            raise RunError(f"{path} holds no run (it has no run.json)")
        return cls(path)

    def lock(self) -> None:
        """Keep other processes from training here, until `unlock` or the end of this one.

        Raises:
            RunError: another one trains here.
        """
        if self._lock is None:
            self._lock = RunLock(self.path)

    def unlock(self) -> None:
        """Let other processes train here. Does nothing where it is not locked."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def record(
        self,
        plugins: list[dict[str, Any]],
        config_text: str,
        operative_text: str,
        command: str,
        origin: Mapping[str, Any] | None = None,
        *,
        blocked: Sequence[str] = (),
        objects: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Write `config.gin`, `operative.gin` and `run.json`, once, before the run starts.

        Args:
            plugins: rows with `name`, `origin` and, of files, `sha256`.
            config_text: the config, self-contained.
            operative_text: all settings, those of defaults too.
            command: the command line.
            origin: the checkpoint that a branch goes on from; None for other runs.
            blocked: installed plugins that were left out.
            objects: selectors of the components that were given as objects, by their places.
        """
        about: dict[str, Any] = {
            "command": command,
            "plugins": plugins,
            "blocked": list(blocked),
            "objects": dict(objects or {}),
            "environment": describe_environment(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if origin is not None:
            about["from"] = dict(origin)

        # `run.json` comes last: it makes the folder a run.
        write_atomically(self.path / "config.gin", config_text.encode())
        write_atomically(self.path / "operative.gin", operative_text.encode())
        write_atomically(self.path / "run.json", (json_text(about, indent=1) + "\n").encode())

    def about(self) -> dict[str, Any]:
        """Return the content of `run.json`, as `record` wrote it.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "run.json"
        try:
            content: dict[str, Any] = json.loads(self._read_text("run.json"))
            plugins_are_rows = all(_is_plugin_row(row) for row in content["plugins"])
            content = {"blocked": [], "objects": {}, **content}  # an older version noted neither
            are_lists = _is_list_of_texts(content["blocked"]) and all(
                _is_list_of_texts(names) for names in content["objects"].values()
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error
        if not plugins_are_rows:
            raise RunError(f"{path} is damaged: its plugins are no rows of name, origin and sha256")
        if not are_lists:
            raise RunError(f"{path} is damaged: its blocked or objects are no lists of names")
        return content

    def read_config(self) -> str:
        """Return the text of `config.gin`: includes and overrides resolved.

        Raises:
            RunError: the file is missing or no text.
        """
        return self._read_text("config.gin")

    def _read_text(self, name: str) -> str:
        try:
            return read_text(self.path / name)
        except OSError as error:
            raise RunError(f"cannot read {self.path / name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"{self.path / name} is damaged: it is no UTF-8 text") from error

    def log(self, line: str) -> None:
        """Add a dated line to `log.txt`.

        A line that cannot be written ends no run: what fails for the same reason reports it.
        """
        with suppress(OSError), open_regular(self.path / "log.txt", "ab") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n".encode(errors="replace"))

    def log_and_say(self, line: str, say: Say | None) -> None:
        """Log a line, and pass it to `say` where there is one. Only rank 0 does."""
        if distributed.rank() == 0:
            self.log(line)
            if say is not None:
                say(line)

    def warn(self, line: str) -> None:
        """Warn, and log the warning too. Only rank 0 does."""
        if distributed.rank() == 0:
            self.log(f"warning: {line}")
            self.warned.add(line)
            warnings.warn(line, stacklevel=2)

    def checkpoints(self, keep: int = KEEP) -> Checkpoints:
        """Return the run's checkpoints.

        Args:
            keep: see `Checkpoints`; it matters only for saving.
        """
        return Checkpoints(self.path / "checkpoints", keep)

    def append_stats(self, row: Mapping[str, Any]) -> None:
        """Add a tick's row to `stats.jsonl`; see `JsonLines.append`."""
        self._rows.append(row)

    def stats(self) -> list[dict[str, Any]]:
        """Return all ticks' rows that are whole; see `JsonLines.read`."""
        return self._rows.read()

    def cut_stats(self, images: int) -> None:
        """Drop the rows past `images`; see `JsonLines.cut`."""
        self._rows.cut(images, self.warn)


def _make_next_folder(name: str) -> Path:
    """Make a new folder under `runs/` and return it."""
    safe_name = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    ROOT.mkdir(exist_ok=True)
    while True:
        matches = [re.match(r"(\d{5})-", entry.name) for entry in ROOT.iterdir()]
        numbers = [int(match[1]) for match in matches if match is not None]
        path = ROOT / f"{max(numbers, default=-1) + 1:05d}-{safe_name}"
        try:
            path.mkdir()
        except FileExistsError:  # another process was faster
            continue
        return path


def _is_plugin_row(row: Any) -> bool:
    if not isinstance(row["name"], str) or not isinstance(row["origin"], str):
        return False
    sha256 = row.get("sha256")
    return sha256 is None or isinstance(sha256, str)


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def read_command_line() -> str:
    """Return the command that started this process, quoted for a shell, without the folder of its program."""
    program = [os.path.basename(sys.argv[0])]
    if program == ["__main__.py"]:
        program = ["python", "-m", "pggan_kit"]
    return shlex.join([*program, *sys.argv[1:]])
