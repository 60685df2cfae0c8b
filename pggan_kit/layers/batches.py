"""Keep batches apart that pass through a network side by side."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class _Batches(threading.local):
    count = 1


_batches = _Batches()


@contextlib.contextmanager
def side_by_side(count: int) -> Iterator[None]:
    """What a discriminator is given inside is so many batches of equal size, one behind the other."""
    before, _batches.count = _batches.count, count
    try:
        yield
    finally:
        _batches.count = before


def count_batches() -> int:
    """Return how many batches are side by side, which an architecture that `separates_batches` has to keep apart."""
    return _batches.count
