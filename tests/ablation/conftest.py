"""What tests of whole ablations share: one that runs in this process, and one that has ended."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from helpers.ablation_plugin import SWITCH
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import ablation

Ablate = Callable[..., dict[str, Any]]

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]

FEW = "pggan_kit.ablation.settings.count_pairs_needed"


@pytest.fixture
def few_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds are enough to conduct an ablation; a test of its own checks that plans with too few are refused."""
    monkeypatch.setattr(FEW, lambda contrasts: 1)


@pytest.fixture
def ablate(tiny: Callable[..., str], few_seeds: None, no_memory_count: None) -> Ablate:
    """`ablate("ablate.seeds = (0,)", ..., out="out")` runs a hard and a linear variant of the tiny experiment."""
    tiny()
    Path("switch.gin").write_text(SWITCH)

    def run(*bindings: str, out: str = "out", said: list[str] | None = None, **options: Any) -> dict[str, Any]:
        lines: list[str] = [] if said is None else said
        return ablation.ablate("switch.gin", bindings, out=out, plugins=PLUGINS, say=lines.append, **options)

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation that was never stopped; not to be changed. `outcome.json` beside it has what it said and returned."""
    said: list[str] = []
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.gin").write_text(TINY)
    (folder / "switch.gin").write_text(SWITCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(FEW, lambda contrasts: 1)
        analysis = ablation.ablate("switch.gin", out="out", plugins=PLUGINS, say=said.append)
    (folder / "outcome.json").write_text(json.dumps([said, analysis]))
    return folder / "out"


@pytest.fixture
def any_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ablation may begin in a folder with trials of another one, which it then does not run again."""
    monkeypatch.setattr("pggan_kit.ablation.conduct.require_unused_folder", lambda *arguments: None)


@pytest.fixture
def begun(finished: Path, ablate: Ablate) -> Ablate:
    """`ablate`, for which `out/` holds a finished ablation."""
    shutil.copytree(finished, "out")
    return ablate
