"""One process at a time trains in a run directory: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import errno
import os
import platform
from pathlib import Path
from types import TracebackType

from pggan_kit.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: see `RunLock`
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
_LONGEST = 200  # bytes read of who holds it


class RunLock:
    """Held from its making to `release()`, the end of a `with` block, or the death of the process.

    The file `.lock` stays when the lock is released: to remove it would let two processes hold locks on two files of
    that name. Without such locks (Windows, some network file systems) two processes are not kept apart.

    Args:
        folder: the run directory. It must exist.

    Raises:
        RunError: another process, or another run of this one, holds it; the message says which. Or the folder cannot
            be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from error
        try:
            if fcntl is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(self._descriptor, 0)
            os.write(self._descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
        except BlockingIOError:
            holder = os.pread(self._descriptor, _LONGEST, 0).decode(errors="replace").strip()
            self.release()
            raise RunError(
                f"{folder} is in use by {_printable(holder) or 'another process'}, which trains in it; wait until it "
                "ends, or stop it"
            ) from None
        except OSError as error:
            # A note of who holds it may not fit the disk; and a file system may have no locks.
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOSPC, errno.EDQUOT):
                self.release()
                raise RunError(f"cannot lock {path}: {error.strerror}") from error

    def release(self) -> None:
        """Let others have it. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _printable(text: str) -> str:
    """Without what would steer a terminal: the directory may come from somebody else."""
    return "".join(character for character in text if character.isprintable())
