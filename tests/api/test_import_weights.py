"""Importers of plugins: which one reads a file, and what is said of those that are wrong; the page about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import ROOT, STUB_PLUGIN

import pggan_kit
from pggan_kit import ForeignNetworks, RunError, hookimpl, load_generator
from pggan_kit.api.import_weights import import_weights, read_foreign_networks
from pggan_kit.api.prepare import prepare_run
from pggan_kit.errors import PluginError, UnforeseenError
from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.runs.checkpoints import Checkpoints

PAGE = (ROOT / "docs" / "exchange.md").read_text(encoding="utf-8")


class Copier:
    """An importer of weights that a run of the tiny experiment has saved."""

    name = "copier"

    def __init__(self, run: Any) -> None:
        self.run = run

    def read(self, path: Path) -> ForeignNetworks | None:
        if path.suffix != ".copy":
            return None
        saved = self.run.files.checkpoints().load_last()
        config = self.run.files.read_config().replace("train.dataset = @datasets.Stub()", "")
        average = saved.select_average(None)
        return ForeignNetworks(
            config, 1, saved.stage, saved.generator, saved.discriminator, average, 1.0, saved.bridged, ["a note"]
        )


class Bringing:
    """A plugin that brings what it is given."""

    def __init__(self, *brought: Any) -> None:
        self.brought = brought

    @hookimpl
    def importers(self) -> Any:
        if self.brought == ("raise",):
            raise OSError("no disk")
        return list(self.brought)


def test_importer_of_a_plugin_makes_a_run(train: Callable[..., Any]) -> None:
    """The run draws what the networks drew, begins at the end of their stage, and says where they are from."""
    original = train("schedule.sizes = (4, 8)", run_dir="original")
    Path("weights.copy").touch()
    said: list[str] = []
    plugins = [Bringing(Copier(original))]
    folder = pggan_kit.import_weights("weights.copy", run_dir="imported", plugins=plugins, say=said.append)
    latents = torch.randn(3, 8)
    assert torch.equal(load_generator(folder)(latents), original.generator()(latents))
    assert "a note" in said and "of copier: networks of 8x8" in said[0]

    _, files = prepare_run(folder, ())
    assert files.about()["imported"]["project"] == "copier"
    assert files.checkpoints().load_last().images == original.state.images
    # A stem of it grows under a schedule of its own.
    stub = str(STUB_PLUGIN)
    grown = pggan_kit.train("tiny.gin", ["schedule.sizes = (4, 8, 16)"], stem=folder, run_dir="grown", plugins=[stub])
    assert grown.state.stage.size == "16x16"


def test_networks_that_cannot_be_saved_leave_no_run(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = [Bringing(Copier(train("schedule.sizes = (4,)", run_dir="original")))]
    Path("weights.copy").touch()

    def fail(*_: Any, **__: Any) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(Checkpoints, "save", fail)
    with pytest.raises(RunError, match="the disk is full"):
        pggan_kit.import_weights("weights.copy", run_dir="imported", plugins=plugins)
    assert not Path("imported").exists()


def test_wrong_importers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file.copy"
    path.touch()
    wrong = ((("raise",), r"importers\(\) raised OSError"), ((3,), r".* a name and a method read, not 3"))
    for brought, pattern in wrong:
        with pytest.raises(PluginError, match=rf"plugin Bringing: {pattern}"):
            import_weights(path, plugins=[Bringing(*brought)])
    with pytest.raises(RunError, match=r"importers of: pytorch_GAN_zoo, copier$"):
        import_weights(path.rename(tmp_path / "file.other"), plugins=[Bringing(Copier(None))])
    assert not (tmp_path / "runs").exists()


class Broken:
    """An importer that fails on every file."""

    name = "broken"

    def read(self, path: Path) -> ForeignNetworks | None:
        raise ZeroDivisionError("no such thing")


def test_an_importer_that_fails_leaves_the_file_to_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.copy"
    path.touch()
    networks = ForeignNetworks("", 1, 0, {}, {}, {}, 1.0, {}, [])

    class Last:
        name = "last"

        def read(self, path: Path) -> ForeignNetworks | None:
            return networks

    assert read_foreign_networks(load_plugins([Bringing(Broken(), Last())]), path) == ("last", networks)
    with pytest.raises(UnforeseenError, match=r"importer of broken failed: ZeroDivisionError: no such thing"):
        read_foreign_networks(load_plugins([Bringing(Broken())]), path)


def test_page_on_exchange(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its importer is found and asked, and its snippet draws digits with the demo's generator."""
    importer, snippet = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    plugin = tmp_path / "mine.py"
    plugin.write_text(importer)
    path = tmp_path / "weights.mine"
    path.touch()
    with pytest.raises(UnforeseenError, match=r"importer of .* failed in .*: NotImplementedError"):
        import_weights(path, plugins=[str(plugin)])

    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(snippet, names)
    images = names["images"]
    assert images.shape == (20, 1, 28, 28)
    # Bright strokes on black: digits, and no noise.
    assert float(images.median()) == pytest.approx(-1, abs=0.05) and 0.8 < float(images.max()) < 1.5
    assert 0.05 < float((images > 0).float().mean()) < 0.25


def test_a_folder_is_no_file_of_networks(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is a folder: name the file of another project's networks$"):
        pggan_kit.import_weights(tmp_path)
