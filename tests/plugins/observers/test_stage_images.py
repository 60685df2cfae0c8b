"""`observers.Coherence`: its files against the run's checkpoints, and against `metrics.Coherence`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.killing import StopAt
from helpers.paths import STUB_PLUGIN
from torch import Tensor

import pggan_kit
from pggan_kit.api.train import resume
from pggan_kit.errors import ConfigError, Interrupted
from pggan_kit.layers.tensors import images_to_uint8
from pggan_kit.system.json_lines import JsonLines
from pggan_kit.testing import ObserverSuite
from pggan_plugins.observers import Coherence

STUB = str(STUB_PLUGIN)
WATCHED = (
    "train.observers = [@observers.Coherence()]",
    "observers.Coherence.count = 24",
    "train.latent_size = 8",
)


class Rows:
    """Features that need no weights: the means of the images' rows."""

    def __call__(self, images: Tensor) -> Tensor:
        return images.mean((1, 3))

    def fingerprint(self) -> str:
        return "means of rows"


class TestCoherence(ObserverSuite):
    bad_arguments = ({"count": 1}, {"largest": 0})

    def make(self) -> Coherence:
        return Coherence(Rows(), count=4)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return JsonLines(folder / "coherence.jsonl").read(pytest.fail)


def read_images(folder: Path, size: str) -> dict[str, np.ndarray]:
    with np.load(folder / "coherence" / f"{size}.npz", allow_pickle=False) as content:
        return dict(content)


def test_files_are_those_of_the_stage_ends(train: Callable[..., Any]) -> None:
    """Images are those of the checkpoints, rows have the values of `metrics.Coherence` at the ends of stages."""
    run = train(*WATCHED, run_dir="run")
    for size in ("4x4", "8x8", "16x16"):
        kept = read_images(run.directory, size)
        generator = pggan_kit.load_generator(run.directory, stage=size)
        images = images_to_uint8(generator(torch.tensor(kept["latents"]))).permute(0, 2, 3, 1).numpy()
        assert kept["images"].shape == images.shape and kept["latents"].shape == (24, 8)
        # Batches of other sizes may round otherwise.
        assert np.abs(kept["images"].astype(int) - images).max() <= 1

    # A row right after each growth, and one at each tick of the later stages.
    rows = read_rows(run.directory)
    assert [(row["at"], row["images"], row["size"]) for row in rows] == [
        (8, 16, "8x8"),
        (16, 16, "8x8"),
        (24, 24, "8x8"),
        (24, 32, "16x16"),
        (32, 32, "16x16"),
        (40, 40, "16x16"),
    ]
    values = {
        row["metric"]: row["value"]
        for row in pggan_kit.evaluate(run.directory, metrics=["Coherence"], bindings=["metrics.Coherence.count = 24"])
    }
    assert rows[2]["Coherence/4x4"] == pytest.approx(values["Coherence 4x4-8x8"], abs=2e-3)
    assert rows[5]["Coherence/4x4"] == pytest.approx(values["Coherence 4x4-16x16"], abs=2e-3)
    assert rows[5]["Coherence/8x8"] == pytest.approx(values["Coherence 8x8-16x16"], abs=2e-3)
    # A linear fade begins with the old path: right after the growth the picture is the same one.
    assert (
        rows[0]["Coherence/4x4"] == pytest.approx(0, abs=1e-2) and rows[3]["Coherence/8x8"] < rows[3]["Coherence/4x4"]
    )


@pytest.mark.parametrize(("kind", "channels"), [("uint16", 2), ("int16", 1), ("float32", 7)])
def test_images_are_kept_in_the_type_and_the_units_of_the_data(
    kind: str, channels: int, train: Callable[..., Any]
) -> None:
    """What is compared is what the data can hold, whatever that is, and a resumed run reads it back."""
    numbers = np.random.default_rng(0).integers(0, 4096, (12, 16, 16, channels)).astype(kind)
    np.save("data.npy", numbers)
    lines = (
        *WATCHED,
        "train.dataset = @datasets.Arrays()",
        "datasets.Arrays.file = 'data.npy'",
        "datasets.Arrays.layout = 'NHWC'",
        "data.value_range = (-1000, 5000)",
    )
    whole = train(*lines, run_dir="whole")
    for size in ("4x4", "16x16"):
        kept = read_images(whole.directory, size)
        assert kept["images"].dtype == np.dtype(kind)
        drawn = pggan_kit.load_generator("whole", stage=size).draw_numbers(torch.tensor(kept["latents"]))
        expected = drawn.permute(0, 2, 3, 1).numpy().astype(np.float64)
        assert np.abs(kept["images"] - expected).max() <= (0.01 if kind == "float32" else 1)

    if kind == "uint16":  # the type that torch can do least with
        with pytest.raises(Interrupted):
            train(*lines, plugins=(StopAt(28),), run_dir="broken")
        resume("broken", plugins=[STUB])
        assert read_rows(Path("broken")) == read_rows(whole.directory)


def test_a_resumed_run_has_the_same_files(train: Callable[..., Any]) -> None:
    """Mid-fade, at the end of a stage, and between two ticks, when the row after the growth is not written yet."""
    whole = train(*WATCHED, run_dir="whole")
    paths = [path.relative_to(whole.directory) for path in whole.directory.glob("coherence*/*")]
    assert paths
    for at in (16, 24, 28):
        broken = Path(f"broken{at}")
        with pytest.raises(Interrupted):
            train(*WATCHED, plugins=(StopAt(at),), run_dir=str(broken))
        resume(broken, plugins=[STUB])
        for path in (*paths, Path("coherence.jsonl")):
            assert (broken / path).read_bytes() == (whole.directory / path).read_bytes(), at


def test_images_of_high_stages_are_kept_small(train: Callable[..., Any]) -> None:
    run = train(*WATCHED, "observers.Coherence.largest = 11", run_dir="run")
    assert read_images(run.directory, "16x16")["images"].shape == (24, 8, 8, 1)
    assert read_images(run.directory, "8x8")["images"].shape == (24, 8, 8, 1)


def test_a_branch_compares_with_the_stages_of_its_trunk(train: Callable[..., Any], tiny: Callable[..., str]) -> None:
    """Also where that run is not there any more; with other latents or units it begins from scratch."""
    trunk = train(*WATCHED, run_dir="trunk")
    shutil.copytree("trunk", "copy")
    branch = pggan_kit.train(tiny(*WATCHED), run_dir="branch", start_from="copy@1", plugins=[STUB])
    shutil.rmtree("copy")
    rows = read_rows(branch.directory)
    assert rows and rows == [row for row in read_rows(trunk.directory) if row["stage"] == 2]

    for line in ("observers.Coherence.seed = 1", "data.value_range = (0, 300)"):
        other_run = pggan_kit.train(tiny(*WATCHED, line), run_dir=line[:8], start_from="trunk@1", plugins=[STUB])
        tags = [{tag for tag in row if "/" in tag} for row in read_rows(other_run.directory)]
        assert tags == [{"Coherence/8x8"}] * 3, line


def test_labels_are_fixed(train: Callable[..., Any]) -> None:
    conditional = ("architectures.PGGAN.conditioning = 'projection'", "datasets.Stub.classes = 3")
    run = train(*WATCHED, *conditional, run_dir="run")
    assert read_images(run.directory, "8x8")["labels"].tolist() == [0, 1, 2] * 8
    with pytest.raises(ConfigError, match="with 3 classes, count must be above 3, and is 3"):
        train(*WATCHED, *conditional, "observers.Coherence.count = 3", run_dir="other")
