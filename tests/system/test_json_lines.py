"""Rows of JSON: what a disk that is full for a moment leaves behind."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pggan_kit.errors import TrainingError
from pggan_kit.system.json_lines import JsonLines


@pytest.fixture
def disk() -> Iterator[None]:
    """Let files that grow too large fail as on a full disk, and not by a signal; restore the limit."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_half_a_row_does_not_spoil_the_next_one(tmp_path: Path, disk: None) -> None:
    rows = JsonLines(tmp_path / "rows.jsonl")
    rows.append({"images": 1})
    size = rows.path.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, hard))
    with pytest.raises(TrainingError, match=r"cannot write .*rows\.jsonl: .*checkpoints saved before are untouched"):
        rows.append({"images": 2, "text": "x" * 100})
    assert rows.path.stat().st_size == size, "the half that was written is gone"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    rows.append({"images": 3})
    assert [row["images"] for row in rows.read()] == [1, 3]
