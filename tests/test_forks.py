"""Forks of this process, in which tests run commands, are as separate from it as new processes are."""

import gc
import os
from pathlib import Path

from helpers.forks import Fork


def test_files_that_this_process_forgot_close_none_of_a_fork(tmp_path: Path) -> None:
    """A file in a cycle of objects is closed whenever Python collects them: in a fork, under another file's number."""
    (tmp_path / "mine").write_text("content")
    gc.collect()
    gc.disable()
    try:
        forgotten: list[object] = [(tmp_path / "forgotten").open("w")]
        forgotten.append(forgotten)
        number = forgotten[0].fileno()  # type: ignore[attr-defined]
        del forgotten

        def read_mine() -> None:
            descriptor = os.open(tmp_path / "mine", os.O_RDONLY)
            os.dup2(descriptor, number)
            gc.collect()
            assert os.pread(number, 10, 0) == b"content"

        process = Fork(read_mine)
        assert process.wait() == 0, process.read_errors()
    finally:
        gc.enable()
        gc.collect()
