"""Hash the contents of files, once for each version of a file: the hashes are kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pggan_kit.errors import DataError, RunError
from pggan_kit.system.activities import report_activity
from pggan_kit.system.cache import cache_folder
from pggan_kit.system.files import open_regular, read_bytes, write_atomically

FORMAT = 1
"""Number in the name of each file of hashes: raise it when their meaning changes."""

SETTLED_NS = 2_000_000_000
"""Age from which on a file's times tell its version: a younger one may change again within the clock's resolution."""

BLOCK_BYTES = 1 << 20
"""Bytes that are read at a time."""

THREADS = 8
"""Maximum number of files that are read at once."""

FILES_AT_ONCE = 256
"""Maximum known files of a task: most are only looked at."""

UNREADABLE = "unreadable"
"""What stands for the hash of a file that cannot be read."""

Version = list[int]
"""Size of a file, and its times of change in nanoseconds, which any change of its content changes."""


def hash_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the SHA-256 of each file's content, or `UNREADABLE`.

    A hash is read from the cache folder (`$PGGAN_KIT_CACHE`, else `~/.cache/pggan_kit`) where the file has not changed
    since. Where that folder cannot be written, all files are read each time.

    Args:
        folder: Folder of the files.
        names: Paths of the files below it.
    """
    place = _name_file(os.fsdecode(folder.resolve()))
    kept = _read_kept(place)
    fresh: dict[str, list[Any]] = {}
    now = time.time_ns()
    # Text, since millions of path objects take longer than the disk.
    prefix = os.fsdecode(folder)

    # A hash is kept with the file's version; a file that has just changed may change again within its time stamp.
    def hash_some(some: Sequence[str]) -> list[str]:
        digests = []
        for name in some:
            path = os.path.join(prefix, name)
            try:
                version = _read_version(path)
                row = kept.get(name)
                if isinstance(row, list) and len(row) == 2 and row[0] == version and isinstance(row[1], str):
                    digests.append(row[1])
                    continue
                digest = _hash(path)
            except OSError:
                digests.append(UNREADABLE)
                continue

            # A file that has just changed may change again within the resolution of its times.
            if max(version[1:]) < now - SETTLED_NS:
                fresh[name] = [version, digest]
            digests.append(digest)
        return digests

    # The contents of a large folder take minutes, where nothing is kept yet.
    digests: list[str] = []
    parts = _split(names, kept)
    place_of_all = folder / names[0] if len(names) == 1 else folder
    what = f"hashing the contents of {place_of_all}"
    with (
        ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), thread_name_prefix="hashes") as pool,
        report_activity(what, len(names), "files") as activity,
    ):
        for some in pool.map(hash_some, parts):
            digests += some
            activity.advance(len(some))
    if fresh:
        _keep(place, {**kept, **fresh})
    return digests


def _split(names: Sequence[str], kept: Mapping[str, Any]) -> list[list[str]]:
    """Split names into tasks: each unknown one for itself, and known ones, which take less time than a task, together.

    Args:
        names: Paths of files.
        kept: What is known, by path.
    """
    parts: list[list[str]] = []
    known = False
    for name in names:
        before = known
        known = name in kept
        if parts and before and known and len(parts[-1]) < FILES_AT_ONCE:
            parts[-1].append(name)
        else:
            parts.append([name])
    return parts


def hash_once(key: str, make: Callable[[], str]) -> str:
    """Return what `make` returned when it was first called for this key; it is kept in the cache folder.

    Args:
        key: What the hash is of, e.g. a library's own name for a version of its data.
        make: Function that makes the hash.
    """
    place = _name_file(f"once {key}")
    digest = _read_kept(place).get("digest")
    if not isinstance(digest, str):
        digest = make()
        _keep(place, {"digest": digest})
    return digest


def _read_version(path: str) -> Version:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(path: str) -> str:
    content = hashlib.sha256()
    with open_regular(Path(path)) as file:
        while block := file.read(BLOCK_BYTES):
            content.update(block)
    return content.hexdigest()


def _name_file(key: str) -> Path | None:
    """Return the path of the hashes that belong to a key; None where no cache folder is known."""
    digest = hashlib.sha256(json.dumps([FORMAT, key], allow_nan=False).encode()).hexdigest()
    try:
        return cache_folder() / "contents" / f"{digest[:32]}.json"
    except DataError:
        return None


def _read_kept(path: Path | None) -> dict[str, Any]:
    """Return the content of a file of hashes; nothing where there is no such file or it is corrupt."""
    if path is None:
        return {}
    try:
        content = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):  # the file only saves time
        return {}
    return content if isinstance(content, dict) else {}


def _keep(path: Path | None, rows: Mapping[str, Any]) -> None:
    if path is None:
        return
    with suppress(OSError, RunError):  # the file only saves time
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(rows, separators=(",", ":"), allow_nan=False).encode())
