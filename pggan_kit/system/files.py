"""Write files whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pggan_kit.errors import RunError

UNFINISHED = ".part"
"""Suffix of temporary files. Only those of a process that was killed remain."""


def write_atomically(path: Path, content: bytes) -> None:
    """Put a file in place so that a crash leaves the old one or the new one, never a part.

    Raises:
        RunError: The disk is full or the folder cannot be written. What was there before is untouched.
    """
    temporary = None
    try:
        # The whole content is on the disk before the file gets its name.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED, delete=False
        ) as file:
            temporary = file.name
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}. What was saved before is untouched") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # it is gone where all went well
                os.unlink(temporary)


@contextmanager
def make_whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, which gets its name when the block ends, so that a crash leaves the whole folder or none.

    Args:
        path: The folder that is to be there, in a folder that exists. An empty one is replaced.

    Yields:
        The folder to fill, beside `path`.

    Raises:
        OSError: The folder cannot be made, or `path` is not empty. Nothing is left then.
    """
    # Not named after `path`, whose name may be as long as a name can be.
    aside = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}")
    aside.mkdir()
    try:
        yield aside
        os.rename(aside, path)
        _sync_folder(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # it is gone where all went well


def is_unfinished(name: str) -> bool:
    """Return whether a file's name is that of a temporary file."""
    return name.startswith(".") and name.endswith(UNFINISHED)


def remove_unfinished(folder: Path) -> list[str]:
    """Remove the temporary files in a folder and in those below it; return their paths within it.

    Only processes that were killed may have written there. Links to folders are not followed.
    """
    removed = []
    for parent, _, names in os.walk(folder):
        for name in filter(is_unfinished, names):
            path = Path(parent, name)
            with suppress(OSError):  # a file too many does no harm
                path.unlink()
                removed.append(str(path.relative_to(folder)))
    return sorted(removed)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
