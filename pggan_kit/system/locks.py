"""Locks of files, which the kernel releases when their process ends: one process at a time trains in a directory."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from pggan_kit.errors import RunError
from pggan_kit.system.files import open_regular

try:
    import fcntl
except ImportError:  # Windows, which does not remove a file that is open
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""Name of the file that is locked in a run directory."""

LONGEST_HOLDER = 200
"""Maximum bytes that are read of the text which says who holds a lock."""

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of a file system that has no locks."""


def acquire(path: Path, waiting: Callable[[], object] | None = None) -> FileLock | None:
    """Acquire the lock of a file, which is made where it is missing and stays when the lock is released.

    Args:
        path: The file, in a folder that exists.
        waiting: Function that is called once before waiting for another process that holds the lock. None not to wait.

    Returns:
        The lock, with its method `release()`. None where the file system has no locks.

    Raises:
        Timeout: Another process, or another lock of this one, holds it, and `waiting` is None.
        OSError: The file cannot be written, or is a symbolic link.
    """
    # Without `fallback_to_soft`, which would leave a lock behind when the process is killed; and not bound to a
    # thread, because the thread that ends a run need not be the one that began it.
    lock = FileLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting is None:
                raise
            waiting()
            lock.acquire()
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise
    return lock


def is_locked(path: Path) -> bool:
    """Return whether somebody holds the lock of a file.

    The answer is yes where nobody can tell: the file system has no locks, or the file cannot be opened.
    """
    if not path.exists():
        return False
    try:
        lock = acquire(path)
    except (Timeout, OSError):
        return True
    if lock is None:
        return True
    lock.release()
    return False


class InUseError(Exception):
    """Others use a file that is asked for alone, or somebody has it alone."""


def share(path: Path, alone: bool = False) -> int | None:
    """Mark a file as used by this process, until the returned descriptor is closed; others may use it too.

    Args:
        path: The file, which may be read-only.
        alone: Whether nobody else may use it meanwhile.

    Returns:
        The descriptor. None where there is no such file (any more), or no such locks.

    Raises:
        InUseError: Others use it and `alone` is set, or somebody uses it alone.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        # It may have been removed before it was locked.
        if os.fstat(descriptor).st_nlink:
            return descriptor
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            os.close(descriptor)
            raise InUseError from error
    os.close(descriptor)
    return None


@contextlib.contextmanager
def hold_when_free(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a file within a block, at whose beginning other holders are waited for.

    Args:
        path: The file, whose folder is made where it is missing.
        waiting: Function that is called once, with the holder, before waiting.

    Raises:
        RunError: The file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # None: this system has no locks.
        lock = acquire(path, lambda: waiting(read_holder(path)))
        if lock is not None:
            _write_holder(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


class RunLock:
    """The lock of a run directory, held until `release()`, the end of a `with` block, or the end of the process.

    The file `.lock` stays when the lock is released: removing it would let two processes lock two files of that name.
    A lock belongs to a file, and not to its path, so `is_held_in` says whether a path still leads to this one. Where
    the file system has no locks (some network file systems), two processes are not kept apart.

    Args:
        folder: The run directory, which must exist.

    Raises:
        RunError: Another process, or another run of this one, holds the lock; the message says which. Or the folder
            cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        self._lock: FileLock | None = None
        if not folder.is_dir():  # filelock would make it
            raise RunError(f"cannot write {path}: {os.strerror(errno.ENOENT)}")
        try:
            self._lock = acquire(path)
            # Without locks, the folder itself is what can be known again.
            self._name = ""
            if self._lock is not None:
                _write_holder(path)
                self._name = LOCK
            self._file = _identify(folder / self._name)
        except Timeout:
            raise RunError(
                f"{folder} is in use by {read_holder(path)}, which trains in it; wait until it ends, or stop it"
            ) from None
        except OSError as error:
            self.release()
            raise RunError(f"cannot write {path}: {error.strerror}") from error

    def is_held_in(self, folder: Path) -> bool:
        """Return whether a folder is still the one that was locked, and its `.lock` the file that is.

        The answer is yes where nobody can tell: what is written there will say what is wrong.
        """
        try:
            return _identify(folder / self._name) == self._file
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _identify(path: Path) -> tuple[int, int]:
    """Return what no other file or folder has at the same time: the device and the number there."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _write_holder(path: Path) -> None:
    """Write the holder into a lock file, if the disk has room for it."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0))
        try:
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        finally:
            os.close(descriptor)
    except PermissionError:
        # Windows lets nobody write into a file that is locked, not even its holder.
        if os.name != "nt":
            raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def read_holder(path: Path) -> str:
    """Return the holder of a lock, as its file says, or `another process` where it says nothing."""
    text = ""
    with contextlib.suppress(OSError), open_regular(path) as file:
        text = file.read(LONGEST_HOLDER).decode(errors="replace").strip()
    # Without what would steer a terminal: the directory may come from somebody else.
    return "".join(character for character in text if character.isprintable()) or "another process"
