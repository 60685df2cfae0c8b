"""Hash the contents of files, once for each version of a file: the hashes are kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from pggan_kit.errors import DataError, RunError
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
    kept = _read_kept(folder)
    fresh: dict[str, list[Any]] = {}
    now = time.time_ns()

    def hash_file(name: str) -> str:
        path = folder / name
        try:
            version = _read_version(path)
            row = kept.get(name)
            if isinstance(row, list) and len(row) == 2 and row[0] == version and isinstance(row[1], str):
                return row[1]
            digest = _hash(path)
        except OSError:
            return UNREADABLE
        if max(version[1:]) < now - SETTLED_NS:
            fresh[name] = [version, digest]
        return digest

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1), thread_name_prefix="hashes") as pool:
        digests = list(pool.map(hash_file, names))
    if fresh:
        _keep(folder, {**kept, **fresh})
    return digests


def _read_version(path: Path) -> Version:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _hash(path: Path) -> str:
    content = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(BLOCK_BYTES):
            content.update(block)
    return content.hexdigest()


def _name_file(folder: Path) -> Path:
    """Return the path of the hashes of a folder's files."""
    text = json.dumps([FORMAT, os.fsdecode(folder.resolve())])
    return cache_folder() / "contents" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


def _read_kept(folder: Path) -> dict[str, Any]:
    """Return versions and hashes by name, none where there is no such file or it is corrupt."""
    try:
        content = json.loads(read_bytes(_name_file(folder)))
    except (OSError, ValueError, RecursionError, DataError):  # the file only saves time
        return {}
    return content if isinstance(content, dict) else {}


def _keep(folder: Path, rows: Mapping[str, Any]) -> None:
    with suppress(OSError, RunError, DataError):  # the file only saves time
        path = _name_file(folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(rows, separators=(",", ":")).encode())
