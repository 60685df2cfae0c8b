"""Keep checkpoints: written whole or not at all, listed with their SHA-256, read as data and never as code."""

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
"""Suffix that the next save adds to the name of a file whose content has changed, so that it is not used again."""

_NAME = re.compile(r"(\d{12,})-([0-9a-f]{8})\.pt")
_SHA256 = re.compile("[0-9a-f]{64}")
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
        sha256: the hash of the file's content.
        forever: whether it is kept however many follow.
        between_ticks: whether it is removed as soon as another one follows; see `Snapshot`.
    """

    file: str
    images: int
    sha256: str
    forever: bool
    between_ticks: bool = False


class Checkpoints:
    """The `checkpoints/` folder of a run.

    Reading never changes anything in it. The first save of a process cleans up after one that was killed: it removes
    unfinished files, and sets damaged checkpoints aside.

    Args:
        folder: the folder, which is made when the first checkpoint is written.
        keep: number of the last checkpoints that are kept, besides those saved with `forever`.
    """

    def __init__(self, folder: Path, keep: int = KEEP) -> None:
        self.folder = folder
        self.keep = keep
        self._is_clean = False

    def save(self, snapshot: Snapshot, forever: bool = False) -> Path:
        """Write a checkpoint, then the manifest, then remove the checkpoints that are no longer kept.

        Args:
            snapshot: the content. Its clock and hash name the file: of two checkpoints at one clock, neither overwrites
                the other.
            forever: whether it is kept however many follow.

        Raises:
            TrainingError: it cannot be written; what was saved before is untouched.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot make {self.folder}: {error.strerror or error}") from error
        try:
            return self._save(snapshot, forever)
        except RunError as error:  # the input was right: a run that was going on failed
            raise TrainingError(str(error)) from error

    def _save(self, snapshot: Snapshot, forever: bool) -> Path:
        before = self._clean_up()

        # The checkpoint itself, under a name that no other content has.
        buffer = io.BytesIO()
        torch.save(snapshot.content(), buffer)
        content = buffer.getvalue()
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{snapshot.images:012d}-{sha256[:8]}.pt"
        write_atomically(path, content)

        # The same content may have been saved before, to be kept forever.
        entries = []
        for entry in before:
            if entry.file == path.name:
                forever = forever or entry.forever
            else:
                entries.append(entry)
        # One that was written between two ticks pushes none of a tick out: the run may have to go back there.
        dropped = [entry for entry in entries if entry.between_ticks]
        entries.append(Entry(path.name, snapshot.images, sha256, forever, snapshot.between_ticks))
        passing = [entry for entry in entries if not entry.forever and not entry.between_ticks]
        dropped += passing[: max(0, len(passing) - self.keep)]

        # A file is removed only when the manifest no longer lists it.
        self._write_manifest([entry for entry in entries if entry not in dropped])
        for entry in dropped:
            with suppress(OSError):  # a file too many does no harm
                (self.folder / entry.file).unlink()
        return path

    def find_last_file(self) -> Path | None:
        """Return the last checkpoint's file, or None where nothing was written yet."""
        entries = self.read_entries()
        if not entries:
            return None
        return self.folder / entries[-1].file

    def has_files(self) -> bool:
        """Return whether there is any file, whole or not, besides unfinished ones."""
        return any(self.folder.glob("[!.]*"))

    def read_entries(self, say: Say = warnings.warn) -> list[Entry]:
        """Return the manifest's rows, oldest first; none where nothing was written yet.

        Where the manifest is missing or damaged, the rows are made from the files whose content has the hash that their
        name begins with. Which of them were to stay forever is not known then, so all are.

        Args:
            say: the receiver of one sentence where the manifest is missing or damaged.
        """
        manifest = self.folder / MANIFEST
        try:
            listed = _parse_manifest(manifest.read_bytes())
            problem = "is damaged"
        except FileNotFoundError:
            listed = None
            problem = "is missing"
        except OSError as error:
            listed = None
            problem = f"cannot be read ({error.strerror})"
        if listed is not None:
            return listed

        # A folder without any checkpoint has no manifest yet: that is no problem to report.
        whole, damaged = self._list_files()
        if whole or damaged or problem != "is missing":
            left_out = ""
            if damaged:
                left_out = f", and left out as damaged: {', '.join(damaged)}"
            say(f"{manifest} {problem}: {len(whole)} whole checkpoints were found without it{left_out}")
        return whole

    def load_last(self, say: Say = warnings.warn) -> Snapshot:
        """Return the content of the last whole checkpoint, on the CPU; see `find_last`."""
        return self.find_last(say)[1]

    def find_last(self, say: Say = warnings.warn) -> tuple[Entry, Snapshot]:
        """Return the last whole checkpoint: its row in `read_entries()`, and its content, on the CPU.

        Args:
            say: the receiver of one sentence that names later checkpoints that are damaged, and the one that is used.

        Raises:
            RunError: there is none, none is whole, or its content is corrupt.
        """
        reasons = []
        for entry in reversed(self.read_entries(say)):
            try:
                content = self._read_content(entry)
            except _DamagedError as error:
                reasons.append(str(error))
                continue
            if reasons:
                say(f"{'; '.join(reasons)}. Using the one before: images {entry.images} ({entry.file})")
            return entry, self._decode(entry, content)

        # Nothing can be loaded: the message says whether there ever was anything.
        if reasons:
            raise RunError(f"no checkpoint in {self.folder} is whole: {reasons[0]}")
        if self.has_files():
            raise RunError(f"no checkpoint in {self.folder} is whole")
        raise RunError(
            f"{self.folder} holds no checkpoint: the run ended before its first tick. Start it again from scratch"
        )

    def load(self, entry: Entry) -> Snapshot:
        """Return the content of one of `read_entries()`, on the CPU.

        Raises:
            RunError: it is damaged or corrupt.
        """
        return self._decode(entry, self._read_content(entry))

    def load_kept(self, say: Say = warnings.warn) -> Iterator[Snapshot]:
        """Yield the contents of those saved with `forever` and of the last, oldest first, one at a time.

        Args:
            say: the receiver of one sentence for each that is damaged and so left out.
        """
        entries = self.read_entries(say)
        for entry in entries:
            if not entry.forever and entry is not entries[-1]:
                continue
            try:
                snapshot = self.load(entry)
            except RunError as error:
                say(str(error))
                continue
            yield snapshot

    def _read_content(self, entry: Entry) -> bytes:
        path: Path = self.folder / entry.file
        try:
            if not path.is_file():  # to read a pipe in its place would wait forever
                raise FileNotFoundError(2, "no such file")
            content = path.read_bytes()
        except (OSError, MemoryError) as error:
            raise _DamagedError(f"cannot read {path}: {getattr(error, 'strerror', 'too large')}") from error
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise _DamagedError(f"{path} is damaged: its SHA-256 is not the one that was noted when it was written")
        return content

    def _decode(self, entry: Entry, content: bytes) -> Snapshot:
        path: Path = self.folder / entry.file
        try:
            values = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except (Exception, RecursionError, MemoryError) as error:  # torch.load documents none of what it raises
            raise RunError(
                f"{path} holds something other than tensors and plain values, so it was not loaded: a checkpoint is "
                f"data, never code ({type(error).__name__})"
            ) from error
        try:
            return Snapshot.from_content(values)
        except RunError as error:
            raise RunError(f"{path}: {error}") from error

    def _list_files(self) -> tuple[list[Entry], list[str]]:
        """Return rows for the files that are whole, oldest first, and the names of the others."""
        whole: list[Entry] = []
        damaged: list[str] = []
        for path in sorted(self.folder.glob("*.pt"), key=_sort_key):
            name = _NAME.fullmatch(path.name)
            sha256 = None
            if name is not None:
                sha256 = _hash_file(path)
            if name is not None and sha256 is not None and sha256.startswith(name[2]):
                whole.append(Entry(path.name, int(name[1]), sha256, forever=True))
            else:
                damaged.append(path.name)
        return whole, damaged

    def _clean_up(self) -> list[Entry]:
        """Return the rows of whole checkpoints; the first call removes leftovers and sets damaged ones aside."""
        entries = self.read_entries()
        if self._is_clean:
            return entries

        with suppress(OSError):
            for leftover in self.folder.glob(f".*{UNFINISHED}"):
                leftover.unlink()

        # A damaged checkpoint would count among those kept, and push a whole one out.
        whole = [entry for entry in entries if _hash_file(self.folder / entry.file) == entry.sha256]
        if whole != entries:
            self._write_manifest(whole)
            for entry in entries:
                if entry not in whole:
                    path = self.folder / entry.file
                    with suppress(OSError):
                        path.rename(path.with_name(path.name + DAMAGED))
        self._is_clean = True
        return whole

    def _write_manifest(self, entries: list[Entry]) -> None:
        rows = [asdict(entry) for entry in entries]
        write_atomically(self.folder / MANIFEST, json_text(rows, indent=1).encode())


class _DamagedError(RunError):
    """A file that is missing, or whose content has changed: the one before may be whole."""


def _parse_manifest(content: bytes) -> list[Entry] | None:
    """Return the manifest's rows, or None where it was not written here: a name in it must not lead elsewhere."""
    # The file may hold anything: a look-up in what is no list of rows fails.
    try:
        rows = json.loads(content)
        is_valid = all(
            _NAME.fullmatch(row["file"])
            and _SHA256.fullmatch(row["sha256"])
            and type(row["images"]) is int
            and type(row["forever"]) is bool
            and type(row.get("between_ticks", False)) is bool
            for row in rows
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not is_valid or not isinstance(rows, list):
        return None
    return [
        Entry(row["file"], row["images"], row["sha256"], row["forever"], row.get("between_ticks", False))
        for row in rows
    ]


def _hash_file(path: Path) -> str | None:
    """Return the SHA-256 of a file's content, or None where it cannot be read."""
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


def _sort_key(path: Path) -> tuple[int, int, str]:
    """Return a sort key: the clock, then the time, since a stage's end and the next one's start share a clock."""
    name = _NAME.fullmatch(path.name)
    images = -1
    if name is not None:
        images = int(name[1])
    try:
        written = path.stat().st_mtime_ns
    except OSError:
        written = 0
    return images, written, path.name
