"""`neighbours`: the nearest training images, against a search by hand, in pixels and in features."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image

from pggan_kit import Component, SettingError, load_generator
from pggan_kit.api.neighbours import Search, find_neighbours
from pggan_kit.api.sample import draw

Cli = Callable[..., Result]

FEATURES = """\
import torch

from pggan_kit import Component, hookimpl


class Means:
    def __init__(self, scale=1.0):
        self.scale = scale

    def __call__(self, images):
        return self.scale * images.mean((1, 2, 3))[:, None]

    def fingerprint(self):
        return f"means {self.scale}"


@hookimpl
def components():
    return [Component("features", "Means", Means)]
"""


def search_by_hand(samples: np.ndarray, reals: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and rows (N, K) of the nearest, in float64."""
    differences = (samples[:, None].astype(float) - reals[None].astype(float)) / 127.5
    distances = np.sqrt((differences**2).mean((2, 3, 4)))
    rows = distances.argsort(1)[:, :count]
    return np.take_along_axis(distances, rows, 1), rows


def test_neighbours_are_the_nearest(train: Any, cli: Cli, refused: Callable[..., str], stub: str) -> None:
    run = train("schedule.sizes = (4, 16)", "datasets.Stub.n = 40", run_dir="run")
    found = find_neighbours(Path("run"), count=5, nearest=3, seed=2)
    np.testing.assert_array_equal(found.samples, draw(load_generator("run"), 5, 2))
    reals = run.data.level((16, 16)).images.transpose(0, 2, 3, 1) if run.data else None
    if reals is None:
        reals = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)
    distances, rows = search_by_hand(found.samples, reals, 3)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)
    np.testing.assert_array_equal(found.images, reals[rows])
    assert not found.mirrored.any()

    # Reals are compared with all others but themselves.
    others = search_by_hand(reals, reals, 2)[0][:, 1]
    assert len(found.floor) == 5 and all(np.isclose(others, value, rtol=1e-5).any() for value in found.floor)

    # The command: a picture and the tables.
    words = ("--count", 5, "--nearest", 3, "--seed", 2)
    result = cli("neighbours", "run", "--out", "a.png", "--distances", "a.json", *words, "--json")
    assert result.exit_code == 0, result.output
    table = json.loads(Path("a.json").read_text())
    assert json.loads(result.stdout) == table and table["space"] == "pixels"
    assert [row["image"] for row in table["nearest"]] == rows.flatten().tolist()
    assert table["median"] == pytest.approx(np.median(distances[:, 0]))
    assert cli("neighbours", "run", "--out", "a.png", "--distances", "a.csv", *words).exit_code == 0
    with open("a.csv", newline="") as file:
        assert [float(row["distance"]) for row in csv.DictReader(file)] == pytest.approx(distances.flatten().tolist())
    with Image.open("a.png") as picture:
        # Rows of a sample and three neighbours, each 64 pixels wide.
        assert picture.size == (4 * 66 + 2, 5 * 66 + 2)
        second = np.asarray(picture)[66 + 2 : 66 + 66, 66 + 2 : 66 + 66]
    np.testing.assert_array_equal(second[::4, ::4], reals[rows[1, 0], ..., 0])

    # Features
    Path("means.py").write_text(FEATURES)
    arguments: dict[str, Any] = {"count": 4, "nearest": 2, "plugins": [stub, "means.py"], "features": "Means"}
    by_means = find_neighbours(Path("run"), **arguments, bindings=["features.Means.scale = 3.0"])
    means = reals.mean((1, 2, 3)) / 127.5 - 1
    own = by_means.samples.mean((1, 2, 3)) / 127.5 - 1
    wanted = 3 * np.sort(np.abs(own[:, None] - means[None]), 1)[:, :2]
    np.testing.assert_allclose(by_means.distances, wanted, rtol=1e-3, atol=1e-6)

    # Wrong settings
    draw_none = ("neighbours", "run", "--out", "b.png")
    refused(cli(*draw_none, "--features", "Nobody"), r"Nobody")
    refused(cli(*draw_none, "--nearest", 40), r"--nearest 40: there are 40 training images; ask for fewer")
    refused(cli(*draw_none, "-b", "features.Means.scale = 2"), r"-b sets features of --features NAME")
    refused(cli(*draw_none, "--distances", "a.txt"), r"--distances a\.txt: name a \.json or a \.csv file")
    refused(cli("neighbours", "run", "--out", "b.jpg"), r"--out b\.jpg: name a \.png file")
    for wrong in ("--count 0", "--nearest 0"):
        assert cli(*draw_none, *wrong.split()).exit_code == 2
    for name in ("count", "nearest"):
        with pytest.raises(SettingError, match=name):
            find_neighbours(Path("run"), **{name: 0})
    assert not Path("b.png").exists()


def test_a_generator_that_memorises_is_found_out() -> None:
    """Copies of training images have the distance 0, also mirrored ones, and a row is no neighbour of itself."""
    reals = torch.randint(0, 256, (20, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    queries = torch.cat([reals[7:8], reals[3:4].flip(3), reals[5:6]])
    for mirror in (True, False):
        search = Search(queries, [-1, -1, 5], 2, lambda images: images.flatten(1), mirror)
        for start in (0, 8, 16):
            search.compare(start, reals[start : start + 8].numpy())
        assert search.rows[0, 0] == 7 and search.distances[0, 0] == 0
        assert (search.rows[1, 0] == 3 and search.distances[1, 0] == 0) == mirror
        assert bool(search.mirrored[1, 0]) == mirror and not search.mirrored[0, 0]
        assert 5 not in search.rows[2] and search.distances[2, 0] > 0.1


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_neighbours_of_data_that_are_no_bytes(kind: str, train: Any, cli: Cli) -> None:
    """Distances are of the images that networks see, whatever the data's units; pictures show channels side by side."""
    data = np.random.default_rng(1).integers(0, 50_000, (12, 16, 16, 2))
    if kind == "int16":
        data -= 25_000
    reals = data.astype(kind)
    np.save("data.npy", reals)
    lines = (
        "train.dataset = @datasets.Arrays()",
        "datasets.Arrays.file = 'data.npy'",
        "datasets.Arrays.layout = 'NHWC'",
        "data.value_range = 'min_max'",
    )
    train(*lines, run_dir="run")
    found = find_neighbours(Path("run"), count=4, nearest=2)
    generator = load_generator("run")
    # What is shown was rounded to whole numbers of the data first.
    np.testing.assert_allclose(found.samples.astype(int), draw(generator, 4, 0), atol=1)
    assert found.samples.shape == (4, 16, 32, 1) and found.images.shape == (4, 2, 16, 32, 1)

    low, high = reals.min((0, 1, 2)).astype(float), reals.max((0, 1, 2)).astype(float)
    seen = 2 * (reals.astype(float) - low) / (high - low) - 1
    drawn = 2 * (draw(generator, 4, 0, in_units=True).astype(float) - low) / (high - low) - 1
    distances = np.sqrt(((drawn[:, None] - seen[None]) ** 2).mean((2, 3, 4)))
    np.testing.assert_array_equal(found.rows, distances.argsort(1)[:, :2])
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :2], rtol=1e-4)
    shown = (seen[found.rows[0, 0]] + 1) * 127.5
    np.testing.assert_allclose(found.images[0, 0, ..., 0], np.concatenate([shown[..., 0], shown[..., 1]], 1), atol=0.51)
    assert cli("neighbours", "run", "--out", "a.png", "--count", 2).exit_code == 0


def test_data_that_changed_are_refused(train: Any, cli: Cli, refused: Callable[..., str]) -> None:
    class Other:
        classes = 0
        shade = 0

        def __len__(self) -> int:
            return 12

        def image(self, i: int) -> np.ndarray:
            return np.full((16, 16, 1), self.shade + i, np.uint8)

        def label(self, i: int) -> int:
            return 0

        def fingerprint(self) -> str:
            return f"other {self.shade}"

    row = Component("datasets", "Other", Other)
    train("schedule.sizes = (4,)", "train.dataset = @datasets.Other()", plugins=(row,), run_dir="run")
    Other.shade = 9
    from pggan_kit import ConfigError

    with pytest.raises(ConfigError, match=r"train\.dataset is not what the run was trained on"):
        find_neighbours(Path("run"), plugins=[row])
