"""Keep batches apart that pass through a network together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _Batches(threading.local):
    count = 1


_batches = _Batches()


@contextlib.contextmanager
def declare_batches(count: int) -> Iterator[None]:
    """Declare that a discriminator's input, within a block, is `count` batches of equal size, concatenated."""
    count_before = _batches.count
    _batches.count = count
    try:
        yield
    finally:
        _batches.count = count_before


def count_batches() -> int:
    """Return how many batches the input concatenates, which an architecture that `separates_batches` keeps apart."""
    return _batches.count
