"""Array files of the cache: written whole or not at all, by one process at a time, and opened as memory maps."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from pggan_kit.errors import DataError
from pggan_kit.system import locks


class ArrayWriter:
    """Writes an .npy file row by row, into a temporary file that takes its place when it is whole.

    Plain writes and not a memory map: on a full disk those raise, where a map ends the process with SIGBUS.

    Args:
        path: the file; until `commit`, whatever was there stays.
        dtype, shape: of a row.

    Raises:
        DataError: from each method, if the disk is full or the folder cannot be written.
    """

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        self._dtype, self._shape = np.dtype(dtype), shape
        self._rows = 0
        self._file: BinaryIO

    def __enter__(self) -> ArrayWriter:
        with disk_errors(self._path.parent):
            self._file = open(self._temporary, "xb")
            self._file.write(self._header())
        return self

    def append(self, rows: np.ndarray) -> None:
        """Add (k, *shape) rows."""
        assert (rows.dtype, rows.shape[1:]) == (self._dtype, self._shape)
        with disk_errors(self._path.parent):
            self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def commit(self) -> None:
        """Put the file in its place, once it is safely on the disk.

        Raises:
            DataError: no rows were added.
        """
        if not self._rows:
            raise DataError("the data set holds no image that can be read")
        with disk_errors(self._path.parent):
            self._file.seek(0)
            self._file.write(self._header())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is still buffered may not fit the disk; that was said already
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    def _header(self) -> bytes:
        # NumPy leaves room for a row count of any length, so that it can be filled in at the end.
        buffer = io.BytesIO()
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._rows, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()


def open_array(path: Path, dtype: type[np.generic], dimensions: int) -> np.ndarray | None:
    """The memory-mapped array; None where the file is missing, cut short, or not what was written."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = isinstance(array, np.memmap) and path.stat().st_size == array.offset + array.nbytes
    except Exception:  # a damaged header can raise nearly anything
        return None
    if not whole or array.dtype != dtype or array.ndim != dimensions or not array.flags.c_contiguous:
        return None
    return np.asarray(array)


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold a lock that the kernel releases even when the process is killed; `waiting` is called if another has it.
    Gives whether it is held.

    Where the file system has no locks (some of a network), two processes may both build. That costs time but harms
    nothing: each writes its own temporary file, and what takes its place is always whole.
    """
    with disk_errors(path.parent):
        lock = locks.acquire(path, waiting)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write resized images under {folder}: {error.strerror or error}. Free some space or mend its "
            "permissions, or name another folder with data.cache or $PGGAN_KIT_CACHE"
        ) from error
