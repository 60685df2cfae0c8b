"""Test what is written and read: whole files, regular files only, with or without a byte-order mark."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.waiting import fail_if_it_waits

from pggan_kit.errors import RunError, TrainingError
from pggan_kit.system.files import (
    is_unfinished,
    make_whole_folder,
    open_atomically,
    read_bytes,
    read_text,
    write_atomically,
)
from pggan_kit.system.json_lines import JsonLines


@pytest.fixture(params=["pipe", "socket", "link to a pipe"])
def special(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the path of something that is no regular file. Never a device: a test must not replace one."""
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    path = Path("special")
    with socket.socket(socket.AF_UNIX) as bound:
        if request.param == "socket":
            bound.bind("special")
        elif request.param == "pipe":
            os.mkfifo(path)
        else:
            os.mkfifo("pipe")
            path.symlink_to("pipe")
        with fail_if_it_waits():
            yield path


def test_nothing_but_a_regular_file_is_replaced(special: Path) -> None:
    # Whoever follows a link may change the time of its last access.
    before = special.lstat().st_ino
    with pytest.raises(RunError, match=r"cannot write special: it is no regular file, but a device"):
        write_atomically(special, b"new")
    assert special.lstat().st_ino == before
    assert not stat.S_ISREG(special.stat().st_mode)


def test_nothing_but_a_regular_file_is_read_or_appended_to(special: Path) -> None:
    for read in (read_bytes, read_text):
        with pytest.raises(OSError, match="no regular file"):
            read(special)
    with pytest.raises(RunError, match="cannot read special: no regular file"):
        JsonLines(special).read()
    with pytest.raises(TrainingError, match="cannot write special: no regular file"):
        JsonLines(special).append({"images": 1})


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it is a folder; name a file"):
        write_atomically(tmp_path, b"new")


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 251}.png"
    write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["level.json", ".hidden.json"])
def test_what_a_killed_process_leaves_is_known_by_its_target(name: str, tmp_path: Path) -> None:
    with open_atomically(tmp_path / name):
        (left,) = tmp_path.iterdir()
    assert left.name.startswith(f".{name.lstrip('.')}.") and is_unfinished(left.name)


@pytest.mark.parametrize("place", [".", "..", "/", "a/.."])
def test_a_folder_without_a_name_is_not_made(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="it has no name, but is a place"), make_whole_folder(Path(place)):
        pass
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("\N{BYTE ORDER MARK}größer\r\nzwei\n".encode())
    assert read_text(path) == "größer\nzwei\n"
    path.write_bytes("größer".encode())
    assert read_text(path) == "größer"
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(path)


def test_windows_opens_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the constant is missing, and opening a folder fails."""
    real = os.open

    def open_file(path: str | Path, *arguments: int, **options: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_file)
    with pytest.raises(RunError, match="Permission denied"):
        write_atomically(tmp_path / "file", b"first")
    monkeypatch.delattr(os, "O_DIRECTORY")
    write_atomically(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"second"
