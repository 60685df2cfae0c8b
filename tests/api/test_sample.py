"""Samples: written as they are drawn, in each format; with labels; at any alpha of a fade."""

from __future__ import annotations

import tarfile
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

import pggan_kit
from pggan_kit import RunError, load_generator
from pggan_kit.api import sample as sampling
from pggan_kit.api.image_writers import open_images
from pggan_kit.layers.value_maps import BYTES
from pggan_kit.pictures import PictureSettings, open_picture, to_uint8
from pggan_kit.runs.generators import CHUNK
from pggan_plugins.datasets import CSV

Cli = Callable[..., Result]

LABELLED = ("schedule.sizes = (4, 8)", "datasets.Stub.classes = 3", "architectures.PGGAN.conditioning = 'projection'")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, stub: str) -> Path:
    """Return a conditional run of three classes that faded from 4x4 to 8x8."""
    from conftest import TINY
    from helpers.gin_text import bind_again

    from pggan_kit import train

    folder = tmp_path_factory.mktemp("labelled")
    (folder / "tiny.gin").write_text(bind_again(TINY, LABELLED))
    train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub])
    return folder / "run"


def read_png(file: Any) -> np.ndarray:
    with open_picture(file) as picture:
        return np.asarray(picture)[..., None]


@pytest.mark.parametrize("wanted", [5, "5"])
def test_a_name_that_is_a_number_is_a_name(wanted: str | int) -> None:
    assert sampling.find_class(wanted, 2, ["7", "5"]) == 1
    with pytest.raises(RunError, match=r"no such class; give a number from 0 to 1, or one of 7, 6"):
        sampling.find_class(wanted, 2, ["7", "6"])


@pytest.mark.parametrize("name", ["samples_psi0.7", "samples_psi0.7_v2", "there.d"])
def test_a_folder_may_have_a_dot_in_its_name(labelled: Path, cli: Cli, name: str) -> None:
    Path("there.d").mkdir()
    result = cli("sample", labelled, "--count", 2, "--out", name)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path(name).iterdir()) == ["000000.png", "000001.png", "labels.csv"]


def test_all_formats_have_the_same_images_and_their_labels(labelled: Path, cli: Cli) -> None:
    for target in ("a.npz", "a.npy", "a.tar", "folder"):
        result = cli("sample", labelled, "--count", 5, "--out", target, "--class", 2, "--class", 0)
        assert result.exit_code == 0, result.output
    labels = [2, 0, 2, 0, 2]
    with np.load("a.npz") as file:
        images = file["images"]
        assert file["labels"].tolist() == labels and file["labels"].dtype == np.int64
    generator = load_generator(labelled)
    latents = torch.randn(5, generator.latent_size, generator=sampling.torch_generator(0, "sample"))
    np.testing.assert_array_equal(images, to_uint8(generator(latents, torch.tensor(labels))))
    np.testing.assert_array_equal(np.load("a.npy"), images)

    with tarfile.open("a.tar") as archive:
        assert archive.getnames() == [f"{i:06d}.{kind}" for i in range(5) for kind in ("png", "cls")]
        members = {entry.name: archive.extractfile(entry) for entry in archive}
        assert [int(members[f"{i:06d}.cls"].read()) for i in range(5)] == labels  # type: ignore[union-attr]
        np.testing.assert_array_equal([read_png(members[f"{i:06d}.png"]) for i in range(5)], images)

    np.testing.assert_array_equal([read_png(Path(f"folder/{i:06d}.png")) for i in range(5)], images)
    table = CSV("folder/labels.csv", label_column="label", channels=1)
    assert [table.label(i) for i in range(len(table))] == labels
    np.testing.assert_array_equal([table.image(i) for i in range(5)], images)

    # Fewer images of another call would leave some of these among them.
    again = cli("sample", labelled, "--count", 2, "--out", "folder")
    assert again.exit_code == 2 and "--out folder: it holds images of an earlier call (000000.png)" in again.stderr
    assert len(list(Path("folder").iterdir())) == 6


class Flat(torch.nn.Module):
    """A generator of gray images of 32x32 that are the mean of their latents."""

    latent_size = 4
    classes = 2
    images = 0
    alpha = None
    pictures = PictureSettings()
    values = BYTES
    generator = SimpleNamespace(stages=[SimpleNamespace(image_channels=1)])

    def forward(self, latents: torch.Tensor, *_: Any) -> torch.Tensor:
        return latents.mean(1).view(-1, 1, 1, 1).expand(-1, 1, 32, 32)


@pytest.mark.parametrize("name", ["a.npz", "a.npy", "a.tar", "folder"])
def test_memory_does_not_grow_with_the_count(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that Python and NumPy hold at once, for four times as many images (of 1 MiB in all), and the live latents."""
    chunk = CHUNK // 2
    monkeypatch.setattr(sampling, "CHUNK", chunk)
    generator: Any = Flat()
    latents: list[weakref.ref[torch.Tensor]] = []
    real = sampling.draw_channels

    def convert(*arguments: Any) -> np.ndarray:
        # What torch allocates is not counted.
        return np.array(real(*arguments))

    monkeypatch.setattr(sampling, "draw_channels", convert)
    generator.register_forward_pre_hook(lambda _, arguments: latents.append(weakref.ref(arguments[0])))
    if name == "folder":  # what the files take is not of interest
        monkeypatch.setattr(Path, "write_bytes", lambda path, content: len(content))

    def measure_peak(count: int) -> int:
        tracemalloc.start()
        with open_images(tmp_path / str(count) / name, count) as writer:
            for images, labels in sampling.iterate_images(generator, count, 0):
                writer.write(images, labels)
                assert sum(each() is not None for each in latents) <= 2
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    measure_peak(chunk)
    few = measure_peak(2 * chunk)
    many = measure_peak(8 * chunk)
    assert many < few + 150_000, (few, many)


def test_a_long_sample_goes_on_from_batch_to_batch(tmp_path: Path) -> None:
    """Labels go round over batches, and latents are those of one sequence."""
    generator: Any = Flat()
    count = 2 * CHUNK + 3
    with open_images(tmp_path / "a.npz", count) as writer:
        for images, labels in sampling.iterate_images(generator, count, 0, labels=[1, 0, 1]):
            writer.write(images, labels)
    with np.load(tmp_path / "a.npz") as file:
        assert file["labels"].tolist() == [[1, 0, 1][i % 3] for i in range(count)]
        latents = torch.randn(2 * CHUNK, 4, generator=sampling.torch_generator(0, "sample"))
        np.testing.assert_array_equal(file["images"][: 2 * CHUNK], to_uint8(generator(latents)))


def test_any_alpha_of_a_fade(labelled: Path, cli: Cli, refused: Callable[..., str]) -> None:
    draw = ("sample", labelled, "--count", 3, "--out", "a.npz")
    images = []
    for alpha in (0, 0.25, 1):
        result = cli(*draw, "--checkpoint", "fade", "--stage", "8x8", "--alpha", alpha)
        assert result.exit_code == 0, result.output
        images.append(np.load("a.npz")["images"].astype(float))
    old, mixed, new = images
    assert np.abs(old - new).max() > 1
    clipped = (np.minimum(old, new) == 0) | (np.maximum(old, new) == 255)
    assert clipped.mean() < 0.8
    np.testing.assert_allclose(mixed[~clipped], (0.75 * old + 0.25 * new)[~clipped], atol=1.5)

    refused(
        cli(*draw, "--alpha", 0.5),
        r"--alpha 0\.5: .* has no old path to fade from; give --checkpoint fade, with --stage for .*: 1 \(8x8\)$",
    )
    refused(cli(*draw, "--checkpoint", "fade", "--stage", "4x4"), r"no checkpoint within such a fade .*: 1 \(8x8\)$")
    for wrong in (-0.1, 1.1, "nan"):
        result = cli(*draw, "--checkpoint", "fade", "--alpha", wrong)
        assert result.exit_code == 2 and "--alpha" in result.stderr


def test_the_advice_on_alpha_fits_what_was_named(
    labelled: Path, train: Any, cli: Cli, refused: Callable[..., str]
) -> None:
    """A file and a folder for a hub have one generator, and a run without a fade has none to draw from."""
    train("train.switch = @switches.Hard()", "schedule.sizes = (4, 8)", run_dir="hard")
    pggan_kit.export(labelled, target="whole.safetensors")
    pggan_kit.export(labelled, "hub-folder", "hub")
    pggan_kit.export(labelled, target="fade.safetensors", checkpoint="fade")
    short = ("--keys", 2, "--steps", 2, "--count", 1)
    for name, *words in (("sample", "--out", "a.png"), ("interpolate", "--out", "a.gif", *short)):
        options = (*words, "--alpha", 0.5)
        assert "leave --alpha out" in refused(cli(name, "hard", *options), "no checkpoint within a fade")
        for place in ("whole.safetensors", "hub"):
            refused(cli(name, place, *options), "export one that has: pggan-kit export RUN --checkpoint fade$")
        assert cli(name, "fade.safetensors", *options).exit_code == 0


def test_what_fails_leaves_no_file(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sampling.draw_pictures

    def fail_later(generator: Any, latents: torch.Tensor, *others: Any) -> np.ndarray:
        if len(latents) < CHUNK:
            raise RunError("broken")
        return real(generator, latents, *others)

    monkeypatch.setattr(sampling, "draw_pictures", fail_later)
    for name in ("a.npz", "a.npy", "a.tar", "a.png"):
        with pytest.raises(RunError, match="broken"):
            sampling.sample(labelled, CHUNK + 1, 0, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_of_the_caller_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between the batches; noise depends on the seed alone."""
    monkeypatch.setattr(sampling, "CHUNK", 4)

    class Noisy(Flat):
        def forward(self, latents: torch.Tensor, *_: Any) -> torch.Tensor:
            return torch.rand(len(latents), 1, 4, 4)

    def draw_three_batches() -> np.ndarray:
        batches = []
        for images, _ in sampling.iterate_images(Noisy(), 10, seed=3):  # type: ignore[arg-type]
            batches.append(images)
            torch.rand(7)
        return np.concatenate(batches)

    torch.manual_seed(5)
    first = draw_three_batches()
    assert len(np.unique(first.reshape(10, -1), axis=0)) == 10
    after = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(7), torch.rand(7), torch.rand(7)
    assert torch.equal(after, torch.rand(3))
    np.testing.assert_array_equal(draw_three_batches(), first)
    expected = torch.rand(10, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(first, to_uint8(expected))


def test_pngs_are_in_the_units_of_bytes(train: Callable[..., Any], cli: Cli) -> None:
    dark = ("data.value_range = (0, 100)", "schedule.sizes = (4,)")
    train(*dark, run_dir="dark")
    train(*dark, "pictures.channels = 0", run_dir="shown")
    for target in ("dark.npy", "dark", "dark.tar", "dark.png"):
        result = cli("sample", "dark", "--count", 3, "--out", Path("out", target))
        assert result.exit_code == 0 and "as they are shown" not in result.stderr
    units = np.load("out/dark.npy")
    assert units.max() <= 100
    np.testing.assert_array_equal([read_png(Path(f"out/dark/{i:06d}.png")) for i in range(3)], units)
    with tarfile.open("out/dark.tar") as archive:
        np.testing.assert_array_equal([read_png(archive.extractfile(f"{i:06d}.png")) for i in range(3)], units)

    # Under other settings they are as people see them, and that is said.
    result = cli("sample", "shown", "--count", 3, "--out", "out/shown")
    assert "3 images to out/shown, as they are shown; an .npz or .npy file has them in the units" in result.stderr
    assert read_png(Path("out/shown/000000.png")).max() > 100
