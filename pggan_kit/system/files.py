"""Write files whole or not at all, and read regular files only: no device or named pipe is read or replaced."""

from __future__ import annotations

import csv
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, cast

from pggan_kit.errors import RunError

UNFINISHED = ".part"
"""Suffix of temporary files. Only those of a process that was killed remain."""

SHARED_LETTERS = 40
"""Maximum number of letters that the name of a temporary file has in common with that of its target."""


def _read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


PERMISSIONS = 0o666 & ~_read_umask()
"""Permissions of new files. Read once, before there are threads: to read the mask is to change it for a moment."""

NOT_REGULAR = "no regular file, but a device, a named pipe or a socket"
"""Description of what is neither read nor replaced."""


def open_regular(path: Path, mode: Literal["rb", "ab"] = "rb", buffering: int = -1) -> BinaryIO:
    """Open a file in binary mode, if it is a regular one: a named pipe in its place would make the process wait.

    Args:
        path: The file.
        mode: Whether it is read, or appended to.
        buffering: As of Python's `open`; 0 for none.

    Raises:
        OSError: The file cannot be opened, or is no regular file.
    """
    try:
        file = open(path, mode, buffering, opener=_open_without_waiting)  # noqa: SIM115  # the caller closes it
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a named pipe that no process reads
            raise OSError(errno.EINVAL, NOT_REGULAR, str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, NOT_REGULAR, str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: The file cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a regular file in UTF-8, without the byte-order mark that some editors put before it.

    Raises:
        OSError: The file cannot be read, or is no regular file.
        UnicodeDecodeError: It is no UTF-8 text.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path)), encoding="utf-8-sig").read()


@contextmanager
def explain_damage(path: Path) -> Iterator[None]:
    """Say which file is the cause where a block that reads it fails.

    Raises:
        RunError: The file cannot be read, or holds something other than the block takes.
    """
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, csv.Error) as error:
        raise RunError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def require_replaceable(path: Path) -> None:
    """Check that a path may get a new file: nothing is there, or a regular file.

    Raises:
        RunError: There is a folder, a device, a named pipe or a socket.
    """
    try:
        mode = path.stat().st_mode
    except OSError:  # nothing is there, or writing will say what is wrong
        return
    if stat.S_ISDIR(mode):
        raise RunError(f"cannot write {path}: it is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise RunError(f"cannot write {path}: it is {NOT_REGULAR}; name a file")


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Put a file in place so that a crash leaves the old one or the new one, never a part.

    Raises:
        RunError: The disk is full, the folder cannot be written, or the path is that of something other than a regular
            file. What was there before is untouched.
    """
    with open_atomically(path) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write, which gets its name when the block ends: for content that is never in memory as a whole.

    Yields:
        The file, opened to write and read, beside `path`. Where the block fails, nothing is left of it.

    Raises:
        RunError: See `write_atomically`.
    """
    require_replaceable(path)
    temporary = None
    try:
        # The whole content is on the disk before the file gets its name.
        # It begins as `path` does, whose name may be as long as a name can be: who removes what belongs to `path`
        # finds what a process that was killed has left.
        prefix = f".{path.name.lstrip('.')[:SHARED_LETTERS]}."
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=prefix, suffix=UNFINISHED, delete=False) as file:
            temporary = file.name
            yield cast(BinaryIO, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, PERMISSIONS)
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
        OSError: The folder cannot be made, `path` is not empty, or it is no name but a place (`.`, `..`, `/`). Nothing
            is left then.
    """
    if path.name in ("", ".."):
        raise OSError(errno.EINVAL, "it has no name, but is a place", str(path))
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


def remove_unfinished(folder: Path, below: bool = True) -> list[str]:
    """Remove the temporary files in a folder; return their paths within it.

    Only processes that were killed may have written there. Links to folders are not followed.

    Args:
        folder: The folder, which need not exist.
        below: Whether those in the folders below it are removed too.
    """
    removed = []
    for parent, _, names in os.walk(folder):
        for name in filter(is_unfinished, names):
            path = Path(parent, name)
            with suppress(OSError):  # a file too many does no harm
                path.unlink()
                removed.append(str(path.relative_to(folder)))
        if not below:
            break
    return sorted(removed)


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open a folder, and orders such changes itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
