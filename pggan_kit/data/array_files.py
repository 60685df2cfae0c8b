"""Array files of the cache: written whole or not at all, by one process at a time, and opened as memory maps."""

from __future__ import annotations

import io
import math
import os
import secrets
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from pggan_kit.errors import DataError
from pggan_kit.system import locks
from pggan_kit.system.files import UNFINISHED, open_regular

READS_AT_ONCE = 8
"""Number of rows that are read from a file at the same time; disks answer several requests as fast as one."""


class ArrayWriter:
    """A writer of an .npy file, row by row, into a temporary file that takes the file's place when it is complete.

    It writes plainly and not through a memory map: on a full disk a write raises, where a map ends the process with
    SIGBUS.

    Args:
        path: The file. Until `commit`, an older file stays in its place.
        dtype: Type of the numbers.
        shape: Shape of a row.
        token: Part of the temporary file's name: who knows it can go on with the file. None for a random one.
        rows: Number of rows that the temporary file holds already, as `can_go_on` said; what is beyond them is removed.

    Attributes:
        keeps: Whether the temporary file stays where the block ends without `commit`.

    Raises:
        DataError: The disk is full or the folder cannot be written; raised by each method.
    """

    def __init__(
        self, path: Path, dtype: DTypeLike, shape: tuple[int, ...], token: str | None = None, rows: int = 0
    ) -> None:
        self.keeps = False
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{token or secrets.token_hex(8)}{UNFINISHED}")
        self._dtype = np.dtype(dtype)
        self._shape = shape
        self._rows = rows
        self._file: BinaryIO

    def can_go_on(self) -> bool:
        """Return whether the temporary file holds `rows` rows of this kind."""
        try:
            with open_regular(self._temporary) as file:
                header = file.read(len(self._encode_header(0)))
                size = os.fstat(file.fileno()).st_size
        except OSError:
            return False
        return header == self._encode_header(0) and size >= self._count_bytes()

    def __enter__(self) -> ArrayWriter:
        with explain_disk_errors(self._path.parent):
            if self._rows:
                self._file = open(self._temporary, "r+b")
                self._file.truncate(self._count_bytes())
                self._file.seek(0, os.SEEK_END)
            else:
                self._file = open(self._temporary, "xb")
                self._file.write(self._encode_header(0))
        return self

    def append(self, rows: np.ndarray) -> None:
        """Append rows (k, *shape)."""
        assert rows.dtype == self._dtype
        assert rows.shape[1:] == self._shape
        with explain_disk_errors(self._path.parent):
            self._file.write(np.ascontiguousarray(rows).data)
        self._rows += len(rows)

    def sync(self) -> None:
        """Return when all rows are safely on the disk."""
        with explain_disk_errors(self._path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())

    def commit(self) -> None:
        """Put the file in its place, once it is safely on the disk.

        Raises:
            DataError: No rows were appended.
        """
        if not self._rows:
            raise DataError("the data set holds no image that can be read")
        with explain_disk_errors(self._path.parent):
            # Now the number of rows is known.
            self._file.seek(0)
            self._file.write(self._encode_header(self._rows))
            self.sync()
            self._file.close()
            os.replace(self._temporary, self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is still buffered may not fit the disk, which an error has reported already
            self._file.close()
        if not self.keeps:
            self._temporary.unlink(missing_ok=True)

    def _count_bytes(self) -> int:
        """Return the bytes of the file with its rows."""
        return len(self._encode_header(0)) + self._rows * math.prod(self._shape) * self._dtype.itemsize

    def _encode_header(self, rows: int) -> bytes:
        """Return the header of an .npy file, of the same length for any number of rows."""
        # NumPy leaves room for a row count of any length, so that it can be filled in at the end.
        buffer = io.BytesIO()
        fields = {"descr": self._dtype.str, "fortran_order": False, "shape": (rows, *self._shape)}
        np.lib.format.write_array_header_1_0(buffer, fields)
        return buffer.getvalue()


def open_array(path: Path, dtype: DTypeLike | None, dimensions: int) -> np.ndarray | None:
    """Open an array as a memory map; return None where the file is missing, cut short, or of another kind.

    Args:
        path: The file.
        dtype: Type of its numbers; None for any.
        dimensions: Number of its axes.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = isinstance(array, np.memmap) and path.stat().st_size == array.offset + array.nbytes
    except Exception:  # a damaged header can raise nearly anything
        return None
    has_type = dtype is None or array.dtype == dtype
    if not whole or not has_type or array.ndim != dimensions or not array.flags.c_contiguous:
        return None
    return np.asarray(array)


class RowReader:
    """A reader of single rows of an array file that is larger than memory, several at a time.

    A memory map would read the kernel's read-ahead along with each row: 215 times the bytes of a 64x64 colour image.

    Args:
        array: A whole array file as `open_array` returned it.

    Raises:
        DataError: The file cannot be opened any more.
    """

    def __init__(self, array: np.ndarray) -> None:
        mapped = find_map(array)
        assert mapped is not None and mapped.filename is not None
        self._path = Path(mapped.filename)
        self._offset = mapped.offset
        self._shape = array.shape[1:]
        self._dtype = array.dtype
        self._row_bytes = math.prod(self._shape) * self._dtype.itemsize
        try:
            self._file = os.open(self._path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"cannot read {self._path}: {error.strerror or error}") from error

        # Rows are read in any order, many at a time.
        weakref.finalize(self, os.close, self._file)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)
        self._threads = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="rows")

    @staticmethod
    def can_read(array: np.ndarray) -> bool:
        """Return whether an array is a whole file, on a system that reads at any place of a file."""
        mapped = find_map(array)
        return hasattr(os, "preadv") and mapped is not None and mapped.shape == array.shape

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return rows (k, ...) of the array, in the order of their numbers.

        Raises:
            DataError: A row cannot be read.
        """
        taken = np.empty((len(rows), *self._shape), self._dtype)
        targets = taken.reshape(len(rows), -1).view(np.uint8)
        list(self._threads.map(self._read_row, rows.tolist(), targets))
        return taken

    def read_ahead(self, rows: np.ndarray) -> None:
        """Let the kernel begin to read rows that will be taken next."""
        if hasattr(os, "posix_fadvise"):
            for row in rows.tolist():
                place = self._offset + row * self._row_bytes
                os.posix_fadvise(self._file, place, self._row_bytes, os.POSIX_FADV_WILLNEED)

    def _read_row(self, row: int, target: np.ndarray) -> None:
        place = self._offset + row * self._row_bytes
        done = 0
        while done < self._row_bytes:
            try:
                count = os.preadv(self._file, [target[done:].data], place + done)
            except OSError as error:
                raise DataError(f"cannot read {self._path}: {error.strerror or error}") from error
            if count == 0:
                raise DataError(f"{self._path} was cut short while it was used: remove it, and it is made again")
            done += count


def find_map(array: np.ndarray) -> np.memmap | None:
    """Return the memory map that an array is a view of; None where it is none."""
    base: object = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return base if isinstance(base, np.memmap) else None


@contextmanager
def lock_file(path: Path, waiting: Callable[[], object]) -> Iterator[bool]:
    """Hold the lock of a file within a block; the kernel releases it even when the process is killed.

    Where the file system has no locks (some network file systems), two processes may both build. That takes time but
    does no harm: each writes its own temporary file, and only complete files take their place.

    Args:
        path: The file.
        waiting: Function that is called before waiting for another process that holds the lock.

    Yields:
        Whether the lock is held: False where the file system has no locks.
    """
    with explain_disk_errors(path.parent):
        lock = locks.acquire(path, waiting)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def explain_disk_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError within a block into a DataError that says what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write resized images under {folder}: {error.strerror or error}. Free some space or correct the "
            "folder's permissions, or name another folder with data.cache or $PGGAN_KIT_CACHE"
        ) from error
