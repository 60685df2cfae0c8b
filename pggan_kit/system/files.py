"""Write files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
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
