"""Checkpoints: written whole or not at all, listed with their SHA-256, read as data and never as code."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.system.files import UNFINISHED, write_atomically
from pggan_kit.system.json_text import json_text

MANIFEST = "manifest.json"

DAMAGED = ".damaged"
"""What the next save adds to the name of a file that is not what was written, so that nobody takes it for one."""

_NAME = re.compile(r"(\d{12,})-([0-9a-f]{8})\.pt")
_CHUNK = 1 << 24

KEEP = 2
"""Number of the last checkpoints that are kept where nothing else is asked for."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A row of the manifest.

    Attributes:
        file: the name of the checkpoint's file in the folder.
        images: the clock at which it was saved.
        sha256: of the file's content.
        forever: whether it is kept however many follow.
    """

    file: str
    images: int
    sha256: str
    forever: bool


class Checkpoints:
    """The `checkpoints/` folder of a run.

    Reading never changes anything in it. The first save of a process tidies up after one that died: it removes
    unfinished files, and sets damaged checkpoints aside.

    Args:
        folder: made when the first checkpoint is written.
        keep: how many of the last are kept, besides those saved with `forever`.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder = folder
        self.keep = keep
        self._tidy = False

    def save(self, snapshot: Snapshot, forever: bool = False) -> Path:
        """Write a checkpoint, then the manifest, then remove those that are no longer kept.

        Args:
            snapshot: its clock and the hash of the content name the file: of two checkpoints at one clock, neither
                overwrites the other.
            forever: keep it however many follow.

        Raises:
            TrainingError: it cannot be written; what was saved before is untouched.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot make {self.folder}: {error.strerror or error}") from error
        try:
            return self._save(snapshot, forever)
        except RunError as error:  # a run that was going on failed: that is no wrong input
            raise TrainingError(str(error)) from error

    def _save(self, snapshot: Snapshot, forever: bool) -> Path:
        before = self._tidied()
        buffer = io.BytesIO()
        torch.save(snapshot.content(), buffer)
        content = buffer.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{snapshot.images:012d}-{sha256[:8]}.pt"
        write_atomically(path, content)
        forever = forever or any(entry.forever for entry in before if entry.file == path.name)
        entries = [entry for entry in before if entry.file != path.name]
        entries.append(Entry(path.name, snapshot.images, sha256, forever))
        passing = [entry for entry in entries if not entry.forever]
        dropped = passing[: max(0, len(passing) - self.keep)]
        self._list([entry for entry in entries if entry not in dropped])
        for entry in dropped:
            with suppress(OSError):  # a file too many harms nobody
                (self.folder / entry.file).unlink()
        return path

    def last(self) -> Path | None:
        """The last checkpoint's file, None where nothing was written yet."""
        entries = self.entries()
        return self.folder / entries[-1].file if entries else None

    def has_files(self) -> bool:
        """Return whether there is any file, whole or not, besides unfinished ones."""
        return any(self.folder.glob("[!.]*"))

    def entries(self, say: Say = warnings.warn) -> list[Entry]:
        """The manifest's rows, oldest first; none where nothing was written yet.

        Where the manifest is missing or damaged, rows made from the files: those whose content has the hash that their
        name begins with. Which of them were to stay forever is not known then, so all are.

        Args:
            say: told in one sentence what was not as it should be.
        """
        try:
            rows = _checked_rows((self.folder / MANIFEST).read_bytes())
            reason = "is damaged" if rows is None else ""
        except FileNotFoundError:
            rows, reason = None, "is missing"
        except OSError as error:
            rows, reason = None, f"cannot be read ({error.strerror})"
        if rows is not None:
            return rows
        found, damaged = self._from_files()
        if found or damaged or reason != "is missing":
            left_out = f", and left out as damaged: {', '.join(damaged)}" if damaged else ""
            say(f"{self.folder / MANIFEST} {reason}: {len(found)} whole checkpoints were found without it{left_out}")
        return found

    def load_last(self, say: Say = warnings.warn) -> Snapshot:
        """Return the content of the last whole checkpoint, on the CPU; see `find_last`."""
        return self.find_last(say)[1]

    def find_last(self, say: Say = warnings.warn) -> tuple[Entry, Snapshot]:
        """Return the last whole checkpoint: its row in `entries()`, and its content, on the CPU.

        Args:
            say: told in one sentence of each later one that is damaged, and from which the run goes on.

        Raises:
            RunError: there is none, none is whole, or its content is corrupt.
        """
        entries = self.entries(say)
        reasons = []
        for entry in reversed(entries):
            try:
                content = self._content(entry)
            except _DamagedError as error:
                reasons.append(str(error))
                continue
            if reasons:
                say(f"{'; '.join(reasons)}. Using the one before: images {entry.images} ({entry.file})")
            return entry, self._decoded(entry, content)
        if reasons or self.has_files():
            raise RunError(f"no checkpoint in {self.folder} is whole{': ' + reasons[0] if reasons else ''}")
        raise RunError(f"{self.folder} holds no checkpoint: the run ended before its first tick. Start it anew")

    def load(self, entry: Entry) -> Snapshot:
        """Return the content of one of `entries()`, on the CPU.

        Raises:
            RunError: it is damaged or corrupt.
        """
        return self._decoded(entry, self._content(entry))

    def kept(self, say: Say = warnings.warn) -> Iterator[Snapshot]:
        """The contents of those saved with `forever` and of the last, oldest first, one at a time.

        Args:
            say: told in one sentence of each that is damaged; it is left out.
        """
        entries = self.entries(say)
        for entry in entries:
            if entry.forever or entry is entries[-1]:
                try:
                    content = self.load(entry)
                except RunError as error:
                    say(str(error))
                    continue
                yield content

    def _content(self, entry: Entry) -> bytes:
        path: Path = self.folder / entry.file
        try:
            if not path.is_file():  # a pipe in its place would be waited for
                raise FileNotFoundError(2, "no such file")
            content = path.read_bytes()
        except (OSError, MemoryError) as error:
            raise _DamagedError(f"cannot read {path}: {getattr(error, 'strerror', 'too large')}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _DamagedError(f"{path} is damaged: its SHA-256 is not the one that was noted when it was written")
        return content

    def _decoded(self, entry: Entry, content: bytes) -> Snapshot:
        path: Path = self.folder / entry.file
        try:
            entries = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (Exception, RecursionError, MemoryError) as error:  # torch.load documents none of what it raises
            raise RunError(
                f"{path} holds something else than tensors and plain values, and is not read: a checkpoint is data, "
                f"never code ({type(error).__name__})"
            ) from error
        try:
            return Snapshot.from_content(entries)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error

    def _from_files(self) -> tuple[list[Entry], list[str]]:
        """Rows of those that are whole, oldest first, and the names of the others."""
        found, damaged = [], []
        for path in sorted(self.folder.glob("*.pt"), key=_age):
            named = _NAME.fullmatch(path.name)
            sha256 = _sha256(path) if named else None
            if named and sha256 and sha256.startswith(named[2]):
                found.append(Entry(path.name, int(named[1]), sha256, forever=True))
            else:
                damaged.append(path.name)
        return found, damaged

    def _tidied(self) -> list[Entry]:
        entries = self.entries()
        if self._tidy:
            return entries
        with suppress(OSError):
            for leftover in self.folder.glob(f".*{UNFINISHED}"):
                leftover.unlink()
        whole = [entry for entry in entries if _sha256(self.folder / entry.file) == entry.sha256]
        if whole != entries:
            # Else a damaged one would count among those kept, and push a whole one out.
            self._list(whole)
            for entry in entries:
                path = self.folder / entry.file
                if entry not in whole:
                    with suppress(OSError):
                        path.rename(path.with_name(path.name + DAMAGED))
        self._tidy = True
        return whole

    def _list(self, entries: list[Entry]) -> None:
        write_atomically(self.folder / MANIFEST, json_text([asdict(entry) for entry in entries], indent=1).encode())


class _DamagedError(RunError):
    """A file that is missing, or not what was written: the one before may be whole."""


def _checked_rows(content: bytes) -> list[Entry] | None:
    """The manifest's rows, None where it is not one that was written here: a name in it must not lead elsewhere."""
    try:
        rows = json.loads(content)
        good = all(
            _NAME.fullmatch(row["file"])
            and re.fullmatch("[0-9a-f]{64}", row["sha256"])
            and type(row["images"]) is int
            and type(row["forever"]) is bool
            for row in rows
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not good or not isinstance(rows, list):
        return None
    return [Entry(row["file"], row["images"], row["sha256"], row["forever"]) for row in rows]


def _sha256(path: Path) -> str | None:
    """Of a file's content, None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _age(path: Path) -> tuple[int, int, str]:
    """Sorts checkpoints by their clock; of two at one clock (a stage's end, and the next one's start) by time."""
    named = _NAME.fullmatch(path.name)
    try:
        written = path.stat().st_mtime_ns
    except OSError:
        written = 0
    return int(named[1]) if named else -1, written, path.name
