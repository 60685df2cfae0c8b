"""A run: its directory, and what hooks are given of it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pggan_kit.errors import RunError
from pggan_kit.runs.checkpoints import KEEP, Checkpoints, Say
from pggan_kit.system import distributed
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import LOCK, RunLock
from pggan_kit.system.provenance import describe_environment

if TYPE_CHECKING:
    pass

ROOT = Path("runs")
LONGEST_NAME = 60
"""Characters of a config's name in a run's: with four bytes each they still fit a file name."""


class RunDirectory:
    """The files of a run.

    `run.json` (plugins, overrides, environment), `config.gin` (self-contained), `operative.gin`, `log.txt`,
    `stats.jsonl`, `checkpoints/`, and what observers add.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = JsonLines(path / "stats.jsonl")
        self._lock: RunLock | None = None

    @classmethod
    def create(cls, path: Path | None, name: str) -> RunDirectory:
        """A new directory, locked: `path`, or the next number under `runs/`, as `runs/00007-mnist`.

        Args:
            path: an empty folder, or one that is yet to be made.
            name: of the config; what may not stand in a file name becomes a dash.

        Raises:
            RunError: `path` is not empty, cannot be made, or another process has just taken it.
        """
        try:
            files = cls(_next_number(name) if path is None else path)
            if path is not None and path.exists() and not path.is_dir():
                raise RunError(f"--run-dir {path} is not empty; name another")
            files.path.mkdir(parents=True, exist_ok=True)
            # Looked at before, so that a full folder is not written to; and after, since another may have been faster.
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
        if any(entry.name != LOCK for entry in self.path.iterdir()):
            what = "already holds a run" if (self.path / "run.json").exists() else "is not empty"
            raise RunError(f"--run-dir {self.path} {what}; name another, or `pggan-kit resume {self.path}`")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run's directory, not locked.

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
        """Write what the run consists of, once, before it starts; of a branch also its `origin`."""
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
        write_atomically(self.path / "config.gin", config_text.encode())
        write_atomically(self.path / "operative.gin", operative_text.encode())
        write_atomically(self.path / "run.json", (json_text(about, indent=1) + "\n").encode())

    def about(self) -> dict[str, Any]:
        """What `record` wrote in `run.json`.

        Its `plugins` are rows with `name`, `origin` and, of files, `sha256`; `blocked` the installed plugins that were
        left out, `objects` the selectors of parts that were given as objects, by their places.

        Raises:
            RunError: the file is damaged.
        """
        try:
            found: dict[str, Any] = json.loads(self._text("run.json"))
            good = all(isinstance(row[key], str) for row in found["plugins"] for key in ("name", "origin")) and all(
                row.get("sha256") is None or isinstance(row["sha256"], str) for row in found["plugins"]
            )
            found = {"blocked": [], "objects": {}, **found}  # an older version noted neither
            listed = _texts(found["blocked"]) and all(_texts(names) for names in found["objects"].values())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RunError(f"{self.path / 'run.json'} is damaged: {type(error).__name__}: {error}") from error
        if not good:
            raise RunError(f"{self.path / 'run.json'} is damaged: its plugins are no rows of name, origin and sha256")
        if not listed:
            raise RunError(f"{self.path / 'run.json'} is damaged: its blocked or objects are no lists of names")
        return found

    def config_text(self) -> str:
        """`config.gin`: includes and overrides resolved.

        Raises:
            RunError: the file is missing or no text.
        """
        return self._text("config.gin")

    def _text(self, name: str) -> str:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"cannot read {self.path / name}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise RunError(f"{self.path / name} is damaged: it is no UTF-8 text") from error

    def log(self, line: str) -> None:
        """Add a dated line to `log.txt`. That it cannot be written ends no run: what fails then says so itself."""
        with suppress(OSError), (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def tell(self, line: str, say: Say | None) -> None:
        """Log a line, and say it to whoever listens. Only rank 0 does."""
        if distributed.rank() == 0:
            self.log(line)
            if say is not None:
                say(line)

    def warn(self, line: str) -> None:
        """Warn, and log it too. Only rank 0 does."""
        if distributed.rank() == 0:
            self.log(f"warning: {line}")
            warnings.warn(line, stacklevel=2)

    def checkpoints(self, keep: int = KEEP) -> Checkpoints:
        """Return the run's checkpoints.

        Args:
            keep: see `Checkpoints`; it matters to those who save.
        """
        return Checkpoints(self.path / "checkpoints", keep)

    def append_stats(self, row: Mapping[str, Any]) -> None:
        """Add a tick's row to `stats.jsonl`; see `Rows.append`."""
        self._rows.append(row)

    def stats(self) -> list[dict[str, Any]]:
        """All ticks' rows that are whole; see `Rows.read`."""
        return self._rows.read()

    def cut_stats(self, images: int) -> None:
        """Drop the rows past `images`; see `Rows.cut`."""
        self._rows.cut(images, self.warn)


def _next_number(name: str) -> Path:
    """A new folder under `runs/`."""
    safe = re.sub(r"[^\w.-]+", "-", name)[:LONGEST_NAME]
    ROOT.mkdir(exist_ok=True)
    while True:
        numbers = [int(m[1]) for entry in ROOT.iterdir() if (m := re.match(r"(\d{5})-", entry.name))]
        path = ROOT / f"{max(numbers, default=-1) + 1:05d}-{safe}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def environment_command() -> str:
    """How this process was called."""
    return " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
