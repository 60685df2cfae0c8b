"""Keep checkpoints: written whole or not at all, listed with their SHA-256, read as data and never as code."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.snapshot import AVERAGE, STATE, WEIGHTS, Snapshot
from pggan_kit.system.background_writer import wait_for_writes
from pggan_kit.system.files import is_unfinished, read_bytes, write_atomically
from pggan_kit.system.json_text import json_text

MANIFEST = "manifest.json"

DAMAGED = ".damaged"
"""Suffix that a cleaning adds to the name of a file whose content has changed, so that it is not used again."""

BEST = "best-"
"""Beginning of the names of those that are kept as the best by `train.keep_best`; what follows is an ordinary name."""

_NAME = re.compile(r"(\d{12,})-([0-9a-f]{8})\.pt")
_SHA256 = re.compile("[0-9a-f]{64}")

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
        holds: what it has of the run's state; see `Snapshot`. A run goes on from a whole state alone.
    """

    file: str
    images: int
    sha256: str
    forever: bool
    between_ticks: bool = False
    holds: str = STATE


@dataclass(frozen=True)
class _Survey:
    """The files of the folder, as far as their names and the manifest tell.

    Attributes:
        entries: the checkpoints, oldest first; files that the manifest lists were not read yet.
        leftovers: whole checkpoints that the manifest no longer lists, since a process was killed before it had removed
            them; oldest first.
        damaged: names of unlisted files whose content has changed.
        is_as_listed: whether the manifest has just these entries.
    """

    entries: list[Entry]
    leftovers: list[Entry]
    damaged: list[str]
    is_as_listed: bool


class Checkpoints:
    """The `checkpoints/` folder of a run.

    A file proves itself: its name begins with its clock and carries the first digits of its content's SHA-256, and its
    content says whether it is to stay. The manifest lists the files; where it is lost, or wrong about a file that
    proves itself, the file is believed.

    Reading never changes anything in the folder. `clean_up`, which a process that trains calls once, corrects the
    manifest, sets damaged checkpoints aside, and removes what processes have left that were killed.

    Args:
        folder: the folder, which is made when the first checkpoint is written.
        keep: number of the last checkpoints that are kept, besides those saved with `forever`.
        say: the receiver of one sentence for each file that is damaged, missing or not believed.
    """

    def __init__(self, folder: Path, keep: int = KEEP, say: Say = warnings.warn) -> None:
        self.folder = folder
        self.keep = keep
        self._say = say
        self._is_clean = False
        self._known: list[Entry] = []

    def save(self, snapshot: Snapshot, forever: bool = False, is_best: bool = False) -> Path:
        """Write a checkpoint, then the manifest, then remove the checkpoints that are no longer kept.

        The best is a file beside the others, which the manifest does not list: the last checkpoint says which it is.

        Args:
            snapshot: the content. Its clock and hash name the file: of two checkpoints at one clock, neither overwrites
                the other.
            forever: whether it is kept however many follow.
            is_best: whether it is also kept as the best, which its entry `best` describes.

        Raises:
            TrainingError: it cannot be written; what was saved before is untouched.
        """
        try:
            # A run whose folder is gone must not get another.
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise TrainingError(f"cannot make {self.folder}: {error.strerror or error}") from error
        try:
            return self._save(replace(snapshot, forever=forever), is_best)
        except RunError as error:  # the input was right: a run that was going on failed
            raise TrainingError(str(error)) from error

    def save_part(self, snapshot: Snapshot) -> None:
        """Write the part of a checkpoint that is kept for good; the checkpoint itself is to be saved after it.

        Args:
            snapshot: the part, as `Snapshot.reduce` returns it.

        Raises:
            TrainingError: it cannot be written; what was saved before is untouched.
        """
        self.save(snapshot, forever=True)

    def _save(self, snapshot: Snapshot, is_best: bool) -> Path:
        self.clean_up()
        before = self._list_present()

        # The checkpoint itself, under a name that no other content has.
        buffer = io.BytesIO()
        torch.save(snapshot.content(), buffer)
        # A copy would be as large as the checkpoint.
        content = buffer.getbuffer()
        sha256 = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{snapshot.images:012d}-{sha256[:8]}.pt"
        # The best first: a checkpoint that names it is then never without it.
        if is_best:
            write_atomically(self.folder / f"{BEST}{path.name}", content)
        write_atomically(path, content)

        # The same content may have been saved before.
        entries = [entry for entry in before if entry.file != path.name]
        # One that was written between two ticks pushes none of a tick out: the run may have to go back there.
        dropped = []
        if snapshot.holds == STATE:
            dropped = [entry for entry in entries if entry.between_ticks]
        else:
            # A process that was killed before it had saved the whole checkpoint has left its own.
            dropped = [entry for entry in entries if entry.holds != STATE and entry.images == snapshot.images]
        own = Entry(path.name, snapshot.images, sha256, snapshot.forever, snapshot.between_ticks, snapshot.holds)
        entries.append(own)
        passing = [entry for entry in entries if not entry.forever and not entry.between_ticks]
        dropped += passing[: max(0, len(passing) - self.keep)]

        # A file is removed only when the manifest no longer lists it.
        self._known = [entry for entry in entries if entry not in dropped]
        self._write_manifest(self._known)
        superseded = self._list_superseded(snapshot, path.name if is_best else None)
        for name in [*(entry.file for entry in dropped), *superseded]:
            with suppress(OSError):  # a file too many does no harm
                (self.folder / name).unlink()
        return path

    def _list_superseded(self, snapshot: Snapshot, last_name: str | None) -> list[str]:
        """Return the names of best checkpoints that no checkpoint names from which the run may go on.

        Args:
            snapshot: the content of the last checkpoint.
            last_name: the name of the last checkpoint where it is the best.
        """
        # A checkpoint names the last best before it. What is later than that of the last one is of steps that a resumed
        # run has taken in another way.
        last_best_clock = snapshot.best.get("images", -1)
        oldest_clock = min([entry.images for entry in self._known if not entry.forever], default=snapshot.images)
        clocks = self._list_best()
        oldest_best_clock = max((clock for clock in clocks.values() if clock <= oldest_clock), default=-1)

        superseded = [name for name, clock in clocks.items() if clock < oldest_best_clock or clock > last_best_clock]
        if last_name is not None:
            best_name = f"{BEST}{last_name}"
            superseded += [name for name, clock in clocks.items() if clock == last_best_clock and name != best_name]
        return superseded

    def _list_best(self) -> dict[str, int]:
        """Return the clocks of those that are kept as the best, by file name, oldest first."""
        found = [name for name in self._list_names() if name.startswith(BEST) and _NAME.fullmatch(name[len(BEST) :])]
        return {name: int(name[len(BEST) :].partition("-")[0]) for name in found}

    def _list_present(self) -> list[Entry]:
        """Return the rows of checkpoints whose files are there; say which were taken away since the last save."""
        entries = self.read_entries()
        present = set(self._list_names())
        gone = [entry.file for entry in self._known if entry.file not in present]
        if gone:
            self._say(
                f"{len(gone)} checkpoints were removed from {self.folder} while the run was training: "
                f"{', '.join(gone)}. The run continues; put them back if they are needed"
            )
        return [entry for entry in entries if entry.file in present]

    def find_last_file(self) -> Path | None:
        """Return the last checkpoint's file, or None where nothing was written yet."""
        entries = self.read_entries()
        whole = [entry for entry in entries if entry.holds == STATE]
        if not whole:
            return None
        return self.folder / whole[-1].file

    def has_files(self) -> bool:
        """Return whether there is any file, whole or not, besides unfinished ones.

        Raises:
            RunError: the folder cannot be read.
        """
        return any(not name.startswith(".") for name in self._list_names())

    def read_entries(self) -> list[Entry]:
        """Return the rows of the checkpoints, oldest first; none where nothing was written yet.

        They are those of the manifest, and whole checkpoints that a killed process did not get to list. Where the
        manifest is missing or damaged, they are made from the files that prove themselves.

        Raises:
            RunError: the folder cannot be read.
        """
        return self._survey().entries

    def load_last(self) -> Snapshot:
        """Return the content of the last whole checkpoint, on the CPU; see `find_last`."""
        return self.find_last()[1]

    def find_last(self) -> tuple[Entry, Snapshot]:
        """Return the last whole checkpoint: its row, and its content, on the CPU.

        Raises:
            RunError: there is none, none is whole, or its content is corrupt.
        """
        # What a killed process did not get to remove is better than nothing.
        survey = self._survey()
        reasons = []
        for entry in reversed([*survey.leftovers, *survey.entries]):
            if entry.holds != STATE:
                continue
            try:
                content, sha256 = self._read_whole(entry)
            except _UnusableError as error:
                if self._has_moved_on(entry, survey.entries):
                    return self.find_last()
                reasons.append(str(error))
                continue
            if reasons:
                self._say(f"{'; '.join(reasons)}. Using the one before: images {entry.images} ({entry.file})")
            return replace(entry, sha256=sha256), self._decode(entry, content)

        # Nothing can be loaded: the message says whether there is anything.
        if reasons:
            raise RunError(f"no checkpoint in {self.folder} is whole: {reasons[0]}")
        if self.has_files():
            raise RunError(f"no checkpoint in {self.folder} is whole")
        raise RunError(
            f"{self.folder} holds no checkpoint, so there is nothing to continue from. If it was moved or its disk is "
            "not there, put it back"
        )

    def load_best(self) -> Snapshot:
        """Return the content of the checkpoint that is kept as the best, on the CPU; its entry `best` says by what.

        Raises:
            RunError: none is kept, or it is missing, damaged or corrupt.
        """
        best = self.load_last().best
        if not best:
            raise RunError(
                f"{self.folder} holds no best checkpoint: it is kept where train.keep_best names a value of "
                "train.metrics, from the first tick on at which it is measured"
            )

        # There may be several files of these images, of which one can be read.
        reasons = []
        for name, images in self._list_best().items():
            if images == best["images"]:
                try:
                    content, sha256 = self._read_proven(name)
                except _UnusableError as error:
                    reasons.append(str(error))
                    continue
                return self._decode(Entry(name, images, sha256, forever=True), content)
        reason = reasons[0] if reasons else f"its file in {self.folder} is missing"
        raise RunError(f"the best checkpoint, that of images {best['images']}, cannot be read: {reason}")

    def load(self, entry: Entry) -> Snapshot:
        """Return the content of one of `read_entries()`, on the CPU.

        Raises:
            RunError: it is damaged or corrupt.
        """
        content, _ = self._read_whole(entry)
        return self._decode(entry, content)

    def load_kept(self, newest_first: bool = False) -> Iterator[Snapshot]:
        """Yield the contents of those saved with `forever` and of the last, oldest first, one at a time.

        One that is damaged is said and left out.

        Args:
            newest_first: Whether the newest is yielded first and the oldest last.
        """
        entries = self.read_entries()
        for entry in reversed(entries) if newest_first else entries:
            if not entry.forever and entry is not entries[-1]:
                continue
            # As a stage has just ended, the whole checkpoint is there besides the part of it that is kept.
            if entry is not entries[-1] and entry.holds != STATE and entry.images == entries[-1].images:
                continue
            try:
                snapshot = self.load(entry)
            except RunError as error:
                if self._has_moved_on(entry, entries):
                    yield self.load_last()
                else:
                    self._say(str(error))
                continue
            yield snapshot

    def _has_moved_on(self, entry: Entry, entries: Sequence[Entry]) -> bool:
        """Return whether another process, which trains, has dropped a checkpoint since the folder was surveyed.

        Args:
            entry: The checkpoint, which cannot be read.
            entries: The rows at that time.
        """
        return not os.path.lexists(self.folder / entry.file) and self.read_entries() != entries

    def clean_up(self) -> list[str]:
        """Correct the manifest, set damaged files aside, and remove leftovers; only the first call does anything.

        Removed are unfinished files, and whole checkpoints that were dropped from the manifest before their process was
        killed, if another one is whole.

        Returns:
            The names of the files that were removed.

        Raises:
            RunError: the folder cannot be read, or the manifest not written.
        """
        if self._is_clean:
            return []
        names = self._list_names()
        survey = self._survey()
        removed = [name for name in names if is_unfinished(name)]

        # A damaged checkpoint would count among those kept, and push a whole one out.
        whole = [entry for entry in map(self._verify, survey.entries) if entry is not None]
        for name in survey.damaged:
            self._set_aside(name)
        if any(entry.holds == STATE for entry in whole):
            removed += [entry.file for entry in survey.leftovers]
        else:
            whole = sorted([*whole, *survey.leftovers], key=lambda entry: entry.images)

        # Parts of a checkpoint that itself was not saved: the run goes on from before it, and comes there again.
        last = max((entry.images for entry in whole if entry.holds == STATE), default=math.inf)
        ahead = [entry for entry in whole if entry.holds != STATE and entry.images > last]
        removed += [entry.file for entry in ahead]
        whole = [entry for entry in whole if entry not in ahead]

        if whole != survey.entries or not survey.is_as_listed:
            self._write_manifest(whole)
        for name in removed:
            with suppress(OSError):  # a file too many does no harm
                (self.folder / name).unlink()
        self._known = whole
        self._is_clean = True
        return removed

    def _verify(self, entry: Entry) -> Entry | None:
        """Return the row that is true of a file, or None where it is no checkpoint any more, which is said."""
        try:
            _, sha256 = self._read_whole(entry)
        except _ChangedError:
            self._set_aside(entry.file)
            return None
        except _UnusableError as error:
            if not os.path.lexists(self.folder / entry.file):
                self._say(f"{error}. It is no longer listed")
                return None

            # It may be whole, and its turn to be removed must not come while nobody can tell.
            self._say(f"{error}. It stays where it is")
            return replace(entry, forever=True)
        return replace(entry, sha256=sha256)

    def _set_aside(self, name: str) -> None:
        """Rename a damaged file, so that nothing uses it again, and say so."""
        path = self.folder / name
        kept = path.with_name(name + DAMAGED)
        try:
            path.rename(kept)
        except OSError as error:
            self._say(f"{path} is damaged, and cannot be renamed to {kept.name}: {error.strerror}")
        else:
            self._say(f"{path} is damaged: its content is not what was written. It was renamed to {kept.name}")

    def _list_names(self) -> list[str]:
        """Return the names of all files in the folder; none where there is no folder.

        Raises:
            RunError: the folder cannot be read: nobody can tell what is in it.
        """
        # Everything begins with the names: who reads in the process that writes sees what is written.
        wait_for_writes()
        try:
            return sorted(os.listdir(self.folder))
        except FileNotFoundError:
            if not self.folder.is_symlink():
                return []
            problem = f"{self.folder} is a link to {os.readlink(self.folder)}, which is not there"
        except OSError as error:
            problem = f"cannot read {self.folder}: {error.strerror}"
        raise RunError(
            f"{problem}. The checkpoints may be intact: correct the folder's permissions, or make its disk available "
            "again, and repeat the command"
        )

    def _survey(self) -> _Survey:
        """Compare the files of the folder with the manifest."""
        names = self._list_names()
        listed, problem = self._read_manifest()
        listed_names = {entry.file for entry in listed or ()}

        # Files that no row names speak for themselves. Only a killed process leaves any.
        whole: list[Entry] = []
        damaged: list[str] = []
        for name in names:
            if _NAME.fullmatch(name) and name not in listed_names:
                try:
                    whole.append(self._make_entry(name))
                except _ChangedError:
                    damaged.append(name)
                except _UnusableError as error:
                    self._say(str(error))
        whole.sort(key=self._sort_key)

        if listed is None:
            # A process that is killed in its first save leaves one file and no manifest yet.
            others = [name for name in names if name.endswith(".pt") and not _NAME.fullmatch(name.removeprefix(BEST))]
            is_first_save = problem == "is missing" and len(whole) <= 1 and not damaged
            if not is_first_save:
                left_out = ""
                if damaged or others:
                    left_out = f", and left out as damaged: {', '.join([*damaged, *others])}"
                manifest = self.folder / MANIFEST
                self._say(f"{manifest} {problem}: {len(whole)} whole checkpoints were found without it{left_out}")
            return _Survey(whole, [], damaged, is_as_listed=not whole)

        # One later than the last row was not listed yet; one that is to stay was never dropped.
        newest = listed[-1].images if listed else -1
        earlier = [entry for entry in whole if entry.images <= newest]
        kept = [entry for entry in earlier if entry.forever]
        leftovers = [entry for entry in earlier if not entry.forever]
        later = [entry for entry in whole if entry.images > newest]
        entries = [*listed, *later]
        if kept:
            entries = sorted([*kept, *entries], key=lambda entry: entry.images)
        return _Survey(entries, leftovers, damaged, is_as_listed=entries == listed)

    def _make_entry(self, name: str) -> Entry:
        """Return the row of a file that no row names, from its name and its content.

        Raises:
            _UnusableError: it cannot be read, or does not prove itself.
        """
        content, sha256 = self._read_proven(name)
        images = int(name.partition("-")[0])
        entry = Entry(name, images, sha256, forever=True)
        try:
            snapshot = self._decode(entry, content)
        except RunError:  # loading it says why it is refused; it is not ours to remove
            return entry
        return replace(entry, forever=snapshot.forever, between_ticks=snapshot.between_ticks, holds=snapshot.holds)

    def _read_whole(self, entry: Entry) -> tuple[bytes, str]:
        """Return the content of a checkpoint's file, and its SHA-256.

        Raises:
            _UnusableError: it cannot be read, or does not prove itself.
        """
        content, sha256 = self._read_proven(entry.file)
        if sha256 != entry.sha256:
            self._say(
                f"{self.folder / MANIFEST} has a wrong SHA-256 for {entry.file}, whose name carries that of its "
                "content: the file is used"
            )
        return content, sha256

    def _read_proven(self, name: str) -> tuple[bytes, str]:
        """Return the content of a file, and its SHA-256, whose first digits its name carries.

        Raises:
            _ChangedError: its content has changed.
            _UnusableError: it cannot be read.
        """
        path = self.folder / name
        try:
            if path.exists() and not path.is_file():  # to read a pipe in its place would wait forever
                raise _ChangedError(f"{path} is damaged: it is no file")
            content = read_bytes(path)
        except (OSError, MemoryError) as error:
            raise _UnusableError(f"cannot read {path}: {getattr(error, 'strerror', 'too large')}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if not name.endswith(f"-{sha256[:8]}.pt"):
            raise _ChangedError(f"{path} is damaged: its SHA-256 is not the one that was noted when it was written")
        return content, sha256

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

    def _read_manifest(self) -> tuple[list[Entry] | None, str]:
        """Return the manifest's rows; or None, and what is wrong with it."""
        try:
            content = read_bytes(self.folder / MANIFEST)
        except FileNotFoundError:
            return None, "is missing"
        except OSError as error:
            return None, f"cannot be read ({error.strerror})"
        rows = _parse_manifest(content)
        if rows is None:
            return None, "is damaged"
        return rows, ""

    def _write_manifest(self, entries: Sequence[Entry]) -> None:
        rows = [asdict(entry) for entry in entries]
        write_atomically(self.folder / MANIFEST, json_text(rows, indent=1).encode())

    def _sort_key(self, entry: Entry) -> tuple[int, int, str]:
        """Return a sort key: the clock, then the time, since a stage's end and the next one's start share a clock."""
        try:
            written = (self.folder / entry.file).stat().st_mtime_ns
        except OSError:
            written = 0
        return entry.images, written, entry.file


class _UnusableError(RunError):
    """A file that is missing or cannot be read now: the one before may be whole."""


class _ChangedError(_UnusableError):
    """A file whose content is not what was written."""


def _parse_manifest(content: bytes) -> list[Entry] | None:
    """Return the manifest's rows, or None where it is not as it was written: a name in it must not lead elsewhere."""
    # The file may hold anything: a look-up in what is no list of rows fails.
    try:
        rows = json.loads(content)
        is_valid = isinstance(rows, list) and all(
            _SHA256.fullmatch(row["sha256"])
            and type(row["images"]) is int
            and type(row["forever"]) is bool
            and row["file"] == f"{row['images']:012d}-{row['sha256'][:8]}.pt"
            and type(row["between_ticks"]) is bool
            and row["holds"] in (STATE, WEIGHTS, AVERAGE)
            for row in rows
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not is_valid:
        return None
    return [
        Entry(row["file"], row["images"], row["sha256"], row["forever"], row["between_ticks"], row["holds"])
        for row in rows
    ]
