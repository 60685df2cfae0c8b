"""Files with one JSON object a line, each with the clock `images`: the rows that a run writes at its ticks.

A row ends with the key `crc32`: the CRC-32 of the row as it is without this key, in UTF-8.
"""

from __future__ import annotations

import errno
import json
import os
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.system.files import open_regular, read_bytes, write_atomically
from pggan_kit.system.json_text import json_text

_CHECKED = re.compile(rb'(\{.*), "crc32": "([0-9a-f]{8})"\}')
"""A row and its checksum. Rows that were written by hand, without one, are read as they are."""


class JsonLines:
    """Rows that accompany checkpoints: written before a checkpoint, and cut back to it when a run is resumed.

    Args:
        path: The file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row and flush it to the disk, so that the checkpoint that follows does not outlive it.

        Raises:
            TrainingError: The row cannot be written.
        """
        line = _encode_row(row).encode()
        try:
            with open_regular(self.path, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(line) < len(line):
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    os.fsync(file.fileno())
                except OSError:
                    # The part of a row that was written would spoil the next one.
                    os.ftruncate(file.fileno(), size)
                    raise
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}. The checkpoints saved before are untouched"
            ) from error

    def read(self, say: Callable[[str], None] = warnings.warn) -> list[dict[str, Any]]:
        """Return all complete rows; none without a file. A process that is killed may leave half a row at the end.

        Args:
            say: Function that is called with one sentence about lines that are damaged, which are left out.

        Raises:
            RunError: The file cannot be read.
        """
        rows, damaged = self._read_lines()
        if damaged:
            say(f"{self.path} is damaged; left out {_describe_lines(damaged)}")
        return rows

    def _read_lines(self) -> tuple[list[dict[str, Any]], list[int]]:
        """Return the rows, and the numbers of the lines that are no rows or have changed."""
        try:
            lines = read_bytes(self.path).split(b"\n")
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise RunError(f"cannot read {self.path}: {error.strerror}") from error

        # A row, or a line whose number is reported. Empty lines are nothing.
        rows = []
        damaged = []
        for number, line in enumerate(lines, start=1):
            row = _parse_row(line)
            if row is not None:
                rows.append(row)
            elif line:
                damaged.append(number)

        # Half a row at the end is what a killed process leaves, and no damage.
        if lines[-1]:
            damaged = [number for number in damaged if number != len(lines)]
        return rows, damaged

    def cut(self, images: int, say: Callable[[str], None]) -> None:
        """Drop the rows past `images`, which a resumed run writes again, and lines that are no rows.

        Args:
            images: The clock of the checkpoint.
            say: Function that is called with one sentence about lines that were damaged.

        Raises:
            RunError: The file cannot be read or written.
        """
        rows, damaged = self._read_lines()
        if damaged:
            say(f"{self.path} was damaged; dropped {_describe_lines(damaged)}")
        rows = [row for row in rows if row["images"] <= images]
        write_atomically(self.path, "".join(_encode_row(row) for row in rows).encode())


def _describe_lines(numbers: list[int]) -> str:
    """Return the count and the first few of some lines' numbers."""
    listed = ", ".join(str(number) for number in numbers[:5])
    if len(numbers) > 5:
        listed += ", ..."
    return f"{len(numbers)} of its lines: {listed}"


def _encode_row(row: Mapping[str, Any]) -> str:
    """Return a row as a line with its checksum."""
    text = json_text(row)
    return f'{text[:-1]}, "crc32": "{zlib.crc32(text.encode()):08x}"}}\n'


def _parse_row(line: bytes) -> dict[str, Any] | None:
    """Return the row that a line holds, or None where it is no row or has changed."""
    checked = _CHECKED.fullmatch(line)
    if checked is not None:
        line = checked[1] + b"}"
        if zlib.crc32(line) != int(checked[2], 16):
            return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or type(row.get("images")) is not int:
        return None
    row.pop("crc32", None)  # of a row that was edited by hand
    return row
