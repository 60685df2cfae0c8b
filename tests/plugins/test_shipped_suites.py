"""The conformance suites of the data sets and observers, and a check that each shipped component passes one."""

from __future__ import annotations

import ast
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.paths import TESTS
from PIL import Image

from pggan_kit.plugin_host.loading import load_plugins
from pggan_kit.testing import DatasetSuite, ObserverSuite
from pggan_plugins.datasets import MNIST, Arrays, ImageFolder, Torch
from pggan_plugins.observers import Growth, Progress, Samples, TensorBoard

UNREACHABLE = {"datasets.HuggingFace"}
"""Components that need a library which the tests do not install; `test_datasets.py` uses a stand-in."""


@pytest.fixture(autouse=True, scope="module")
def folder() -> object:
    with tempfile.TemporaryDirectory() as made:
        rng = np.random.default_rng(0)
        for index in range(5):
            Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(f"{made}/{index}.png")
        np.save(f"{made}/cubes.npy", rng.integers(0, 255, (6, 3, 3, 3), dtype=np.uint8))
        Folder.path = Path(made)
        yield


class Folder:
    """The folder of the module's data."""

    path = Path()


class TestMNIST(DatasetSuite):
    bad_arguments = ({"split": "both"}, {"pad": -1}, {"limit": 0})

    def make(self) -> MNIST:
        return MNIST()

    def make_others(self) -> list[MNIST]:
        return [MNIST(pad=2), MNIST(limit=20)]


class TestImageFolder(DatasetSuite):
    def make(self) -> ImageFolder:
        return ImageFolder(str(Folder.path))

    def make_others(self) -> list[ImageFolder]:
        path = str(Folder.path)
        fitted = [ImageFolder(path, size=8, fit=fit) for fit in ("crop", "pad")]
        backgrounds = [ImageFolder(path, size=8, fit="pad", background="black")]
        return [ImageFolder(path, channels=1), ImageFolder(path, size=9), *fitted, *backgrounds]


class TestArrays(DatasetSuite):
    def make(self) -> Arrays:
        return Arrays(str(Folder.path / "cubes.npy"), layout="NHWC")

    def make_others(self) -> list[Arrays]:
        return [Arrays(str(Folder.path / "cubes.npy"), layout="NCHW")]


class TestTorch(DatasetSuite):
    def make(self) -> Torch:
        images = torch.arange(4 * 36, dtype=torch.uint8).view(4, 1, 6, 6)
        return Torch(torch.utils.data.TensorDataset(images, torch.arange(4) % 2), classes=2)

    def make_others(self) -> list[Torch]:
        images = torch.arange(4 * 36, dtype=torch.uint8).view(4, 1, 6, 6)
        rows = [images, images[:3], images.float() / 255, images.view(4, 1, 4, 9)]
        return [Torch(torch.utils.data.TensorDataset(each)) for each in rows]


class TestSamples(ObserverSuite):
    bad_arguments = ({"count": 0},)

    def make(self) -> Samples:
        return Samples(4)


class TestGrowth(ObserverSuite):
    bad_arguments = ({"count": 0}, {"frame_ms": 1}, {"every": 0})

    def make(self) -> Growth:
        return Growth(4)


class TestTensorBoard(ObserverSuite):
    bad_arguments = ({"count": -1},)

    def make(self) -> TensorBoard:
        return TensorBoard(4)


class TestProgress(ObserverSuite):
    def make(self) -> Progress:
        return Progress()


def test_every_shipped_component_passes_a_suite() -> None:
    """A class in tests/ inherits a suite and makes the component."""
    made: set[str] = set()
    for file in TESTS.rglob("test_*.py"):
        content = file.read_text()
        if "Suite" not in content:  # to parse all tests takes seconds
            continue
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.ClassDef) and node.name.startswith(("Test", "Small")):
                made |= {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
                made |= {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
    rows = load_plugins().rows.items()
    shipped = {selector for selector, row in rows if row.plugin.origin.startswith("pggan_kit ")} - UNREACHABLE
    assert sorted(selector for selector in shipped if selector.partition(".")[2] not in made) == []
