"""Test runs of data that are no photographs: any number of channels, of any depth, in their own units."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from helpers.killing import StopAt, assert_same_run
from helpers.paths import STUB_PLUGIN
from helpers.reporting import draw_few_pictures, leave_out_plots
from PIL import Image

import pggan_kit
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted, RunError
from pggan_kit.pictures import GAP
from pggan_kit.report import write_report
from pggan_kit.runs.directory import RunDirectory

STUB = str(STUB_PLUGIN)

ARRAYS = ["train.dataset = @datasets.Arrays()", "datasets.Arrays.file = 'data.npy'", "datasets.Arrays.layout = 'NHWC'"]


def save_data(name: str, channels: int, kind: str = "uint8", count: int = 12) -> np.ndarray:
    """Write images (n, 16, 16, C) to a file and return them: noise over half of what 12 bits hold, or of a byte."""
    top = 256 if kind == "uint8" else 4096
    data = np.random.default_rng(1).integers(0, top, (count, 16, 16, channels))
    if kind == "int16":
        data -= 1024
    images = data.astype(kind)
    np.save(name, images)
    return images


@pytest.mark.parametrize("channels", [7, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 2, 3, 4))])
def test_a_run_with_any_number_of_channels(
    channels: int,
    tmp_path: Path,
    train: Callable[..., Any],
    cli: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_out_plots(monkeypatch)
    draw_few_pictures(monkeypatch)
    save_data("data.npy", channels)
    lines = [
        *ARRAYS,
        "schedule.sizes = (8, 16)",
        "data.mirror = True",
        "train.observers = [@observers.Samples(), @observers.Growth(), @observers.Spectra(), @observers.TensorBoard()]",
        "observers.Samples.count = 4",
        "observers.TensorBoard.count = 4",
        "observers.Growth.count = 4",
        "observers.Spectra.spectrum = @metrics.RadialSpectrum()",
        "observers.Spectra.count = 4",
        "train.metrics = [@metrics.SlicedWasserstein(), @metrics.RadialSpectrum()]",
        "evaluation.count = 4",
    ]
    whole = train(*lines, run_dir="whole")
    with pytest.raises(Interrupted):
        train(*lines, run_dir="run", plugins=(StopAt(20),))
    resume("run", plugins=[STUB])
    assert_same_run(Path("run"), Path("whole"))

    # Measured, drawn and shown.
    metrics = {row["metric"] for row in pggan_kit.evaluate("run", plugins=[STUB])}
    assert metrics == {"SWD", "SpectralDistance"}
    assert cli("sample", "run", "--count", 4, "--out", "a.npz").exit_code == 0
    assert cli("sample", "run", "--count", 4, "--out", "a.npy").exit_code == 0
    drawn = np.load("a.npz")["images"]
    assert (drawn.dtype, drawn.shape) == (np.uint8, (4, 16, 16, channels))
    np.testing.assert_array_equal(np.load("a.npy"), drawn)
    rows = pggan_kit.evaluate("a.npz", against="a.npy", metrics=["RadialSpectrum"])
    assert rows[0]["value"] == pytest.approx(0, abs=1e-3)
    for target in ("a.png", "pictures"):
        assert cli("sample", "run", "--count", 4, "--out", target).exit_code == 0
    write_report([Path("run"), Path("whole")], Path("report.html"))

    # Gray or colour, or side by side: never transparent.
    panels = 1 if channels in (1, 3) else channels
    pictures = [Path("a.png"), *Path("pictures").glob("*.png"), *Path("run/samples").glob("*.png")]
    assert len(pictures) > 8
    assert {Image.open(path).mode for path in pictures} == {"RGB" if channels == 3 else "L"}
    assert Image.open("pictures/000000.png").size == (16 * panels, 16)
    shown = np.asarray(Image.open("pictures/000001.png"))
    if channels != 3:
        shown = shown.reshape(16, panels, 16).transpose(0, 2, 1)
    np.testing.assert_array_equal(shown, drawn[1])
    assert whole.show(torch.zeros(2, channels, 4, 4)).shape == (2, 4, 4 * panels, 3 if channels == 3 else 1)


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32"])
def test_numbers_come_back_in_their_own_units(kind: str, train: Callable[..., Any], cli: Callable[..., Result]) -> None:
    images = save_data("data.npy", 2, kind)
    lines = [
        *ARRAYS,
        "schedule.sizes = (16,)",
        "data.value_range = 'min_max'",
        "train.metrics = [@metrics.RadialSpectrum()]",
        "evaluation.count = 4",
    ]
    run = train(*lines, run_dir="run")

    # The range is that of the data, and the run's files have it.
    low, high = images.min((0, 1, 2)), images.max((0, 1, 2))
    assert run.values.kind == kind
    assert run.values.ranges == tuple(zip(low.tolist(), high.tolist(), strict=True))
    assert json.loads(Path("run/run.json").read_text())["data"]["values"]["type"] == kind
    reals = run.data.sampler((16, 16)).batch(0, 12)[0]
    mapped = run.values.to_images(reals)
    assert (mapped.amin((0, 2, 3)) == -1).all() and (mapped.amax((0, 2, 3)) == 1).all()

    # Samples are in the units of the data, in Python and in files, and folders of them are compared in these.
    assert cli("sample", "run", "--count", 4, "--out", "a.npy").exit_code == 0
    drawn = np.load("a.npy")
    assert (drawn.dtype, drawn.shape) == (np.dtype(kind), (4, 16, 16, 2))
    generator = pggan_kit.load_generator("run")
    latents = torch.randn(2, 8)
    numbers = generator.draw_numbers(latents)
    expected = (generator(latents).double().clamp(-1, 1).permute(0, 2, 3, 1).numpy() + 1) / 2 * (high - low) + low
    np.testing.assert_allclose(numbers.permute(0, 2, 3, 1).numpy().astype(float), expected, atol=0.5 + 1e-3)
    (value,) = [row["value"] for row in pggan_kit.evaluate("a.npy", against="data.npy", metrics=["RadialSpectrum"])]
    assert value > 0
    np.save("first.npy", images.transpose(0, 3, 1, 2))
    assert pggan_kit.evaluate("a.npy", against="first.npy", metrics=["RadialSpectrum"])[0]["value"] == value
    np.save("gray.npy", images[..., 0])
    np.save("one.npy", drawn[..., :1])
    assert pggan_kit.evaluate("one.npy", against="gray.npy", metrics=["RadialSpectrum"])[0]["value"] > 0
    assert pggan_kit.evaluate("run", plugins=[STUB])[0]["metric"] == "SpectralDistance"

    # The same numbers under another range are other data.
    config = Path("run/config.gin")
    config.write_text(config.read_text().replace("'min_max'", "(-2000, 9000)"))
    with pytest.raises(RunError, match=r"another data set \(values"):
        resume("run", plugins=[STUB])


def test_a_test_set_is_measured_in_the_units_of_the_training_data(train: Callable[..., Any]) -> None:
    images = save_data("data.npy", 1, "uint16")
    np.save("test.npy", images // 2)
    run = train(
        *ARRAYS,
        "schedule.sizes = (16,)",
        "data.value_range = 'min_max'",
        "evaluation.dataset = @test/datasets.Arrays()",
        "test/datasets.Arrays.file = 'test.npy'",
        "test/datasets.Arrays.layout = 'NHWC'",
        "train.metrics = [@metrics.RadialSpectrum()]",
        "evaluation.count = 4",
        run_dir="run",
    )
    assert run.evaluator.values == run.values
    prepared = pggan_kit.api.prepare.prepare_run("run", [STUB])[0]
    stage = run.schedule.stages[0]
    assert prepared.evaluator([stage], torch.device("cpu")).values == run.values
    assert RunDirectory.open(Path("run")).read_values() == run.values


def test_a_range_is_asked_for(rejected: Callable[..., str], tiny: Callable[..., str]) -> None:
    tiny()
    save_data("data.npy", 2, "uint16")
    rejected(r"the images are uint16, which has no range of its own: set data\.value_range to \(low, high\)", *ARRAYS)
    rejected(
        r"data\.value_range has 3 pairs, and the images 2 channels",
        *ARRAYS,
        "data.value_range = ((0, 1), (0, 1), (0, 1))",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "pictures.channels = (0, 1, 7)",
            r"pictures\.channels names channel 7, and the images have 4",
        ),
        ("pictures.channels = 4", r"pictures\.channels names channel 4"),
        ("pictures.channels = (0, 1)", r"channels must be three numbers of channels from 0, .* not \(0, 1\)"),
        ("pictures.channels = 'rgb'", r"channels must be three numbers"),
        ("pictures.channels = -1", r"channels must be three numbers"),
        (
            "pictures.colour_map = 'viridi'",
            r"colour_map must be the name .* \(did you mean viridis\?",
        ),
        ("pictures.colour_map = 3", r"colour_map must be"),
    ],
)
def test_wrong_picture_settings(line: str, message: str, rejected: Callable[..., str]) -> None:
    rejected(message, line, "datasets.Stub.channels = 4")


def test_a_colour_map_has_no_use_in_colour(rejected: Callable[..., str]) -> None:
    rejected(r"pictures\.colour_map has no use where", "pictures.colour_map = 'magma'", "datasets.Stub.channels = 3")


def test_chosen_channels_and_colours(train: Callable[..., Any], cli: Callable[..., Result]) -> None:
    run = train("schedule.sizes = (16,)", "datasets.Stub.channels = 4", "pictures.channels = (3, 2, 0)", run_dir="run")
    assert cli("sample", "run", "--count", 2, "--out", "pictures").exit_code == 0
    assert cli("sample", "run", "--count", 2, "--out", "a.npy").exit_code == 0
    shown = np.asarray(Image.open("pictures/000001.png"))
    np.testing.assert_array_equal(shown, np.load("a.npy")[1][..., [3, 2, 0]])
    assert run.draw_reals(4).mode == "RGB"


@pytest.mark.parametrize("channels", [2, *(pytest.param(c, marks=pytest.mark.slow) for c in (1, 3, 4, 7))])
def test_whatever_shows_images_takes_any_number_of_channels(
    channels: int, train: Callable[..., Any], cli: Callable[..., Result]
) -> None:
    """Loops, strips, neighbours, stages' ends and exported files; numbers are those of the run."""
    save_data("data.npy", channels, "uint16")
    lines = ["data.value_range = (0, 4095)", "train.observers = [@observers.Growth(), @observers.Coherence()]"]
    lines += ["observers.Growth.count = 4", "observers.Coherence.count = 4"]
    if channels != 3:
        lines.append("pictures.colour_map = 'viridis'")
    train(*ARRAYS, *lines, run_dir="run")
    for command in (
        ("interpolate", "run", "--out", "loop.gif", "--keys", 2, "--steps", 2, "--count", 1),
        ("strip", "run", "--out", "strip.png", "--count", 2),
        ("neighbours", "run", "--out", "near.png", "--count", 2),
        ("export", "run", "--out", "net.safetensors"),
        ("export", "run", "--to", "hub-folder", "--out", "hub"),
    ):
        result = cli(*command)
        assert result.exit_code == 0, result.output

    # In colour, by the colour map or by nature, and as wide as there are pictures side by side.
    for name in ("loop.gif", "run/growth.gif", "strip.png", "near.png", "hub/samples.png"):
        with Image.open(name) as picture:
            assert "transparency" not in picture.info and picture.mode in ("RGB", "P"), name
            red, _, blue = np.asarray(picture.convert("RGB")).reshape(-1, 3).T
            assert (red != blue).any(), f"{name} is in colour"
    panels = 1 if channels == 3 else channels
    with Image.open("loop.gif") as picture:
        assert (picture.width - 2 * GAP) % (16 * panels) == 0
    with np.load("run/coherence/8x8.npz") as content:
        assert content["images"].shape == (4, 8, 8, channels)

    for source in ("run", "net.safetensors", "hub"):
        assert cli("sample", source, "--count", 3, "--out", f"{source[:3]}.npy").exit_code == 0
    numbers = np.load("run.npy")
    assert (numbers.dtype, numbers.shape) == (np.uint16, (3, 16, 16, channels)) and numbers.max() <= 4095
    for name in ("net.npy", "hub.npy"):
        np.testing.assert_array_equal(np.load(name), numbers)
