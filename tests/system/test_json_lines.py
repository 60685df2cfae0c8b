"""Test rows: each has a checksum, one that has changed is left out and said, and half a row spoils no other."""

from __future__ import annotations

import json
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.platforms import resource

from pggan_kit.errors import TrainingError
from pggan_kit.system.json_lines import JsonLines

ROWS: list[dict[str, Any]] = [
    {"images": 8, "Loss/a": 0.125, "phase": "stable"},
    {"images": 16, "Loss/a": 1e-300, "phase": "fäde"},
    {"images": 24, "Loss/a": None, "phase": '"}, "crc32": "00000000"}'},
]


def write_rows(folder: Path) -> JsonLines:
    rows = JsonLines(folder / "rows.jsonl")
    for row in ROWS:
        rows.append(row)
    return rows


def test_a_row_comes_back_and_its_line_has_the_checksum_of_the_rest(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    assert rows.read() == ROWS
    for line in rows.path.read_text().splitlines():
        content = json.loads(line)
        checksum = content.pop("crc32")
        assert checksum == f"{zlib.crc32(json.dumps(content).encode()):08x}"


def test_every_changed_character_of_a_row_is_noticed(tmp_path: Path) -> None:
    """A digit of a value, above all; a character of the checksum's own name leaves the row right, and unchecked."""
    rows = write_rows(tmp_path)
    content = rows.path.read_bytes()
    second = content.index(b"\n") + 1
    length = content.index(b"\n", second) - second
    for position in range(length):
        damaged = bytearray(content)
        damaged[second + position] ^= 1
        rows.path.write_bytes(damaged)
        said: list[str] = []
        read = rows.read(said.append)
        assert read[0] == ROWS[0] and read[-1] == ROWS[2]
        if len(read) == 2:
            assert said == [f"{rows.path} is damaged; left out 1 of its lines: 2"]
        else:
            assert position > length - len('"crc32": "01234567"}') and read[1].items() >= ROWS[1].items()


def test_a_damaged_row_is_dropped_and_said_when_the_file_is_cut(tmp_path: Path) -> None:
    rows = write_rows(tmp_path)
    rows.path.write_bytes(rows.path.read_bytes().replace(b"0.125", b"0.126"))
    said: list[str] = []
    rows.cut(16, said.append)
    assert said == [f"{rows.path} was damaged; dropped 1 of its lines: 1"]
    assert rows.read() == ROWS[1:2]
    rows.path.write_bytes(rows.path.read_bytes().replace(b"300", b"200"))
    with pytest.warns(UserWarning, match="left out 1 of its lines: 1"):
        assert rows.read() == []


def test_a_row_that_was_written_by_hand_is_read(tmp_path: Path) -> None:
    rows = JsonLines(tmp_path / "rows.jsonl")
    rows.path.write_text('{"images": 8, "crc32": "00000000", "Loss/a": 2}\n{"images": 16}\n')
    assert rows.read() == [{"images": 8, "Loss/a": 2}, {"images": 16}]
    rows.cut(16, pytest.fail)
    assert rows.read() == [{"images": 8, "Loss/a": 2}, {"images": 16}]


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
