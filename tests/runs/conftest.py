"""What tests of runs on disk share: one finished run, of which they take copies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY

import pggan_kit


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a finished run of 4x4, 8x8 and 16x16, whose stages end at 8, 24 and 40; not to be changed."""
    folder = tmp_path_factory.mktemp("finished_run")
    (folder / "tiny.gin").write_text(TINY)
    pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])
    return folder / "run"


@pytest.fixture
def copy_finished_run(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`copy_finished_run("run")` copies that run into the working folder, and returns the copy."""
    monkeypatch.chdir(tmp_path)

    def copy(name: str) -> Path:
        shutil.copytree(finished_run, name)
        return Path(name)

    return copy
