"""Exported generators draw what the run draws, anywhere; files that were cut or are of something else are refused."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import struct
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import Result
from conftest import TINY
from helpers.gin_text import bind_again
from helpers.paths import STUB_PLUGIN
from safetensors import safe_open
from torch import Tensor

import pggan_kit
from pggan_kit import Component, TrainedGenerator, hookimpl, load_generator
from pggan_kit.api import onnx_file
from pggan_kit.api.onnx_file import encode_onnx
from pggan_kit.errors import ConfigError, RunError, SettingError
from pggan_kit.growth.networks import Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.testing import make_stages
from pggan_kit.testing.support import perturb
from pggan_plugins.architectures import PGGAN, R3GAN, ResNet, SkipPGGAN, StyleGAN2, Tutorial
from pggan_plugins.resampling import Blur, Learned, Nearest

Train = Callable[..., Any]

CONDITIONAL = (
    "architectures.PGGAN.conditioning = 'projection'",
    "datasets.Stub.classes = 3",
    "train.averages = [@averages.HalfLife(), @averages.Copy()]",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, _own_cache: None, stub: str) -> Path:
    """Train a conditional run of three stages with two averages, whose data set is from a plugin file."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.gin").write_text(bind_again(TINY, CONDITIONAL))
    return pggan_kit.train(folder / "tiny.gin", run_dir=folder / "run", plugins=[stub]).directory


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the run `trained` in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "run")
    return Path("run")


def draw(generator: TrainedGenerator, count: int = 5) -> Tensor:
    latents = torch.randn(count, generator.latent_size, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(count) % generator.classes if generator.classes else None
    return generator(latents, labels)


def train_on_scans(train: Train, folder: Path, *lines: str) -> None:
    """Train the run `scan` on images of two channels in units of their own."""
    data = np.random.default_rng(0).integers(-1000, 3000, (12, 16, 16, 2)).astype(np.int16)
    np.save(folder / "data.npy", data)
    bindings = [
        "train.dataset = @datasets.Arrays()",
        "datasets.Arrays.file = 'data.npy'",
        "datasets.Arrays.layout = 'NHWC'",
        "data.value_range = ((-1000, 3000), (-2000, 4000))",
    ]
    train(*bindings, "schedule.sizes = (4, 8)", *lines, run_dir="scan")


# safetensors


def test_file_knows_the_data_s_units_and_how_they_are_shown(train: Train, tmp_path: Path) -> None:
    train_on_scans(train, tmp_path, "pictures.channels = 1")
    ours = load_generator("scan")
    theirs = load_generator(pggan_kit.export("scan", target="scan.safetensors"))
    assert theirs.values == ours.values
    assert theirs.pictures == ours.pictures
    latents = torch.randn(3, ours.latent_size)
    numbers = theirs.values.to_units(theirs(latents))
    assert numbers.dtype == torch.int16
    assert torch.equal(numbers, ours.values.to_units(ours(latents)))

    # A folder for a hub has the same file, and its card says what the images are.
    hub = load_generator(pggan_kit.export("scan", "hub-folder", "hub"))
    assert torch.equal(hub.draw_numbers(latents), numbers)
    card = Path("hub/README.md").read_text()
    assert "8x8 images (2 channels)" in card and "`generator.draw_numbers` gives them" in card
    assert "int16 (-1000, 3000), (-2000, 4000)" in card


def test_file_draws_what_the_run_draws(run: Path, cli: Callable[..., Result]) -> None:
    """At any stage, with any average; nothing but architectures and resampling is needed to load it."""
    for stage, average, size in ((None, None, 16), ("8x8", "copy", 8), (0, None, 4)):
        path = pggan_kit.export(run, target="file.safetensors", stage=stage, average=average)
        loaded = load_generator(path)
        assert draw(loaded).shape[-1] == size
        assert torch.equal(draw(loaded), draw(load_generator(run, stage=stage, average=average)))
        assert loaded.classes == 3

    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["pggan_kit"])
    assert record["stage"] == 0 and record["data"] == {"images": 12, "channels": 1, "classes": 3}
    assert "Stub" not in record["config"] and "losses" not in record["config"]

    # The command line, and sampling from the file.
    result = cli("export", run, "--out", "whole.safetensors")
    assert result.exit_code == 0 and "generator of 16x16, average half_life" in result.stderr
    assert cli("sample", "whole.safetensors", "--out", "a.npz", "--count", "3", "--class", "1").exit_code == 0
    assert cli("sample", run, "--out", "b.npz", "--count", "3", "--class", "1").exit_code == 0
    np.testing.assert_array_equal(np.load("a.npz")["images"], np.load("b.npz")["images"])


def test_file_of_a_fade_keeps_its_alpha(train: Train) -> None:
    run = train("schedule.fade_images = 16", "schedule.total_images = 16", run_dir="run")
    generator = load_generator(run)
    assert generator.alpha is not None and 0 < float(generator.alpha) < 1
    loaded = load_generator(pggan_kit.export(run, target="fade.safetensors"))
    assert torch.equal(draw(loaded), draw(generator))


def test_weights_of_half_the_size_round_them(run: Path) -> None:
    half = pggan_kit.export(run, target="half.safetensors", dtype="float16")
    whole = pggan_kit.export(run, target="whole.safetensors")
    assert half.stat().st_size < whole.stat().st_size
    weights = load_generator(whole).state_dict()
    for name, value in load_generator(half).state_dict().items():
        assert torch.equal(value, weights[name].half().float()), name
    with pytest.raises(SettingError, match=r"dtype .*'float31'.*'float32'"):
        pggan_kit.export(run, target="x.safetensors", dtype="float31")


class Mine(PGGAN):
    """An architecture of a plugin."""


def test_file_names_the_plugin_that_it_needs(train: Train) -> None:
    """And loads none that nobody named."""
    row = Component("architectures", "Mine", Mine)
    others = "train.discriminator_architecture = @architectures.PGGAN()"
    mine = ("train.architecture = @architectures.Mine()", "architectures.Mine.channels = 4", others)
    run = train(*mine, plugins=(row,), run_dir="run")
    path = pggan_kit.export(run.directory, target="mine.safetensors", plugins=[str(STUB_PLUGIN), row])
    assert str(STUB_PLUGIN.parent).encode() not in path.read_bytes()
    text = r"generator is of given by the caller.*unknown component architectures\.Mine: install .* plugins=\[FILE\]$"
    with pytest.raises(ConfigError, match=text):
        load_generator(path)
    assert torch.equal(draw(load_generator(path, plugins=[row])), draw(run.generator()))

    # An object is described nowhere.
    parts = {"train.architecture": Mine(channels=4)}
    given = pggan_kit.train("tiny.gin", run_dir="given", plugins=[str(STUB_PLUGIN), row], parts=parts)
    with pytest.raises(RunError, match=r"train.architecture is an object .* export to onnx"):
        pggan_kit.export(given, target="x.safetensors", parts=parts, plugins=[str(STUB_PLUGIN), row])


def test_wrong_files_are_refused(run: Path, cli: Callable[..., Result], refused: Any) -> None:
    whole = pggan_kit.export(run, target="whole.safetensors").read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    record = json.loads(header["__metadata__"]["pggan_kit"])

    def write(metadata: dict[str, str]) -> bytes:
        text = json.dumps({**header, "__metadata__": metadata}).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]

    def change(**entries: Any) -> bytes:
        return write({"pggan_kit": json.dumps({**record, **entries})})

    # Contents by what is wrong with them.
    wider = record["config"].replace("channels = 4", "channels = 5")
    incomplete = [{"stage": "2"}, {"alpha": 2.0}, {"alpha": "x"}, {"data": {}}, {"more": 1}, {"chosen": {"metric": 1}}]
    contents = {
        "cut off, damaged": [whole[:-10], whole[: length // 2], b"", b"no file of tensors", whole[8:]],
        "does not say how its network is built": [write({})],
        "no JSON object": [write({"pggan_kit": "["}), write({"pggan_kit": "[]"})],
        "has format 9": [change(format=9)],
        "incomplete": [change(**entries) for entries in incomplete],
        "stage 7 of a schedule of 3": [change(stage=7)],
        "another architecture: .* there and": [change(config=wider), change(stage=1)],
        "unknown component losses.Mine": [change(config=record["config"].replace("resampling.Nearest", "losses.Mine"))],
    }
    for pattern, variants in contents.items():
        for content in variants:
            Path("wrong.safetensors").write_bytes(content)
            refused(cli("sample", "wrong.safetensors", "--out", "x.png"), pattern)

    # A file that is missing, and options that a file has no use for.
    refused(cli("sample", "missing.safetensors", "--out", "x.png"), "cannot read missing.safetensors")
    for words in (("--stage", "0"), ("--checkpoint", "best"), ("--checkpoint", "fade"), ("--average", "ema")):
        name = words[0].removeprefix("--")
        refused(cli("sample", "whole.safetensors", "--out", "x.png", *words), rf"has one generator: leave {name} out$")


def test_commands_that_need_a_run_say_what_an_exported_generator_is_for(
    run: Path, cli: Callable[..., Result], refused: Any
) -> None:
    pggan_kit.export(run, target="whole.safetensors")
    pggan_kit.export(run, "hub-folder", "hub")
    for place in ("whole.safetensors", "hub"):
        for command in (("strip", "--out", "x.png"), ("neighbours", "--out", "x.png"), ("evaluate",), ("report",)):
            name, *words = command
            refused(cli(name, place, *words), f"{place} holds no run .*exported generator: name the run's folder")


def test_targets_and_places_are_checked(run: Path, cli: Callable[..., Result], refused: Any) -> None:
    refused(cli("export", run, "--out", "x.pt"), r"name a \.safetensors file")
    refused(cli("export", run, "--out", run / "config.gin", "--to", "hub-folder"), "would replace what the run")
    refused(cli("export", run, "--stage", "32x32"), "no such stage has ended")
    refused(cli("export", run, "--average", "theirs"), "no average theirs")
    refused(cli("export", "nowhere"), "holds no run")
    pggan_kit.export(run, target="file.safetensors")
    refused(cli("export", "file.safetensors", "--to", "onnx"), "exported already")
    with pytest.raises(SettingError, match=r"to .*'keras'"):
        pggan_kit.export(run, "keras")


def test_missing_libraries_name_their_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, to, extra in (("safetensors.torch", "safetensors", "export"), ("onnxruntime", "onnx", "onnx")):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, library, None)
            with pytest.raises(RunError, match=rf"pip install 'pggan_kit\[{extra}\]'"):
                pggan_kit.export(run, to)


# ONNX


def make_generator(architecture: Any, resampling: Any, bridged: bool = False, classes: int = 0) -> TrainedGenerator:
    stages = make_stages((4, 8), 3, classes=classes)
    net = Generator(architecture, resampling, Area(), 0, 6, stages[0])
    net.grow(stages[1], bridged)
    perturb(net)
    return TrainedGenerator(net, 0.3, classes, 0)


def run_onnx(content: bytes, count: int, classes: int) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    latents = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    inputs = {"latents": latents.numpy()}
    if classes:
        inputs["labels"] = (torch.arange(count) % classes).numpy()
    (images,) = session.run(["images"], inputs)
    return images


@pytest.mark.parametrize(
    ("architecture", "resampling", "bridged", "classes"),
    [
        (PGGAN(channels=4, conditioning="projection"), Nearest(), True, 3),
        (ResNet(channels=4), Nearest(), False, 0),
        pytest.param(PGGAN(channels=4), Blur(), True, 0, marks=pytest.mark.slow),
        pytest.param(PGGAN(channels=4), Learned(), False, 0, marks=pytest.mark.slow),
        pytest.param(SkipPGGAN(channels=4), Nearest(), True, 0, marks=pytest.mark.slow),
        pytest.param(StyleGAN2(channels=4, noise=False), Nearest(), False, 0, marks=pytest.mark.slow),
        pytest.param(R3GAN(channels=16), Nearest(), False, 0, marks=pytest.mark.slow),
        pytest.param(Tutorial(generator_channels=4), Nearest(), True, 0, marks=pytest.mark.slow),
    ],
)
def test_onnx_file_draws_the_same_for_any_number_of_latents(
    architecture: Any, resampling: Any, bridged: bool, classes: int
) -> None:
    generator = make_generator(architecture, resampling, bridged, classes)
    content, difference = encode_onnx(generator)
    assert difference is not None and difference < 1e-4
    for count in (1, 7):
        wanted = draw(generator, count).numpy()
        np.testing.assert_allclose(run_onnx(content, count, classes), wanted, rtol=0, atol=1e-4)


def test_onnx_file_of_a_run(run: Path, cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("export", run, "--to", "onnx", "--stage", "4x4")
    assert result.exit_code == 0, result.output
    assert "differ by at most" in result.stderr
    wanted = draw(load_generator(run, stage=0), 3).numpy()
    latents = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)).numpy()
    session = onnxruntime.InferenceSession("run.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["values"]) == {"type": "uint8", "ranges": [[0, 255]]}
    (images,) = session.run(None, {"latents": latents, "labels": np.arange(3)})
    np.testing.assert_allclose(images, wanted, rtol=0, atol=1e-4)


def test_onnx_file_knows_the_data_s_units(train: Train, tmp_path: Path) -> None:
    """Other software needs nothing but the file for numbers in the units of the data."""
    train_on_scans(train, tmp_path)
    session = onnxruntime.InferenceSession(pggan_kit.export("scan", "onnx", "scan.onnx", stage=0))
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata.keys() == {"values"}, "classes have no names"
    values = json.loads(metadata["values"])
    assert values == {"type": "int16", "ranges": [[-1000, 3000], [-2000, 4000]]}

    generator = load_generator("scan", stage=0)
    latents = torch.randn(3, generator.latent_size)
    (images,) = session.run(None, {"latents": latents.numpy()})
    low, high = np.array(values["ranges"]).T[:, :, None, None]
    numbers = ((images.clip(-1, 1) + 1) / 2 * (high - low) + low).round().astype(values["type"])
    # The two may be rounded to different neighbours.
    np.testing.assert_allclose(numbers, generator.draw_numbers(latents).numpy(), rtol=0, atol=1)

    generator.class_names = ("water", "land")
    assert json.loads(onnx_file.describe_images(generator)["class_names"]) == ["water", "land"]


def test_onnx_file_may_differ_by_rounding_alone() -> None:
    generator = make_generator(PGGAN(channels=4), Nearest())
    model = onnx_file._Images(generator).eval()

    class Runtime:
        """A runtime whose images are shifted."""

        shift = 0.0

        def __init__(self, content: bytes, providers: list[str]) -> None:
            pass

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray]:
            with torch.no_grad():
                return (model(torch.from_numpy(inputs["latents"])).numpy() + self.shift,)

    runtime = types.SimpleNamespace(InferenceSession=Runtime)
    Runtime.shift = 8e-5
    assert onnx_file._check_images(runtime, b"", model, generator, ["latents"]) == pytest.approx(8e-5, rel=0.01)
    Runtime.shift = 3e-4
    with pytest.raises(RunError, match=r"differ by 0\.0003"):
        onnx_file._check_images(runtime, b"", model, generator, ["latents"])

    # Larger numbers are rounded more coarsely.
    generator.generator.to_image.weight.mul_(1_000)
    assert onnx_file._check_images(runtime, b"", model, generator, ["latents"]) is not None


def test_onnx_file_that_draws_something_else_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it would be if the divisor of an average were left to torch's exporter, which drops it."""
    monkeypatch.setattr(onnx_file, "_DivisorsAsFactors", contextlib.nullcontext)
    with pytest.raises(RunError, match="draws other images than the generator: they differ by"):
        encode_onnx(make_generator(ResNet(channels=4), Nearest()))


@pytest.mark.slow
def test_onnx_file_of_a_network_with_noise_has_noise() -> None:
    generator = make_generator(StyleGAN2(channels=4), Nearest())
    content, difference = encode_onnx(generator)
    assert difference is None
    assert run_onnx(content, 5, 0).shape == (5, 3, 8, 8)


# A folder for a hub


def test_hub_folder_loads_and_says_what_it_is(
    train: Train, cli: Callable[..., Result], refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = ("train.metrics = [@metrics.RadialSpectrum()]", "evaluation.count = 8", "evaluation.every = 8")
    averages = "train.averages = [@averages.HalfLife(), @averages.Copy()]"
    run = train(*metrics, averages, "data.cache = 'cache'", run_dir="run")
    licences = ("--licence", "mit", "--data-licence", "CC0")
    result = cli("export", run.directory, "--to", "hub-folder", "--out", "hub", *licences)
    assert result.exit_code == 0, result.output
    assert "hf upload NAME/hub hub ." in result.stderr and "is not given" not in result.stderr
    assert {path.name for path in Path("hub").iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "samples.png",
    }
    assert torch.equal(draw(load_generator("hub")), draw(run.generator()))

    card = Path("hub/README.md").read_text()
    assert card.startswith('---\nlibrary_name: pggan_kit\nlicense: "mit"\n')
    measured = [tag for tag in run.stats[-1] if tag.startswith("Metrics/") and not tag.endswith("_floor")]
    assert measured
    for tag in measured:
        value = run.stats[-1][tag]
        floor = run.stats[-1][f"{tag}_floor"]
        assert f"| {tag.removeprefix('Metrics/')} | {value:.4g} | {floor:.4g} |" in card
    assert f"`{run.identity['dataset']['content']}`" in card and "| licence | CC0 |" in card
    assert "train.loss = @losses.Hinge()" in card and "data.cache = '.../cache'" in card
    assert str(run.directory.parent) not in card
    assert json.loads(Path("hub/config.json").read_text())["architectures"] == ["PGGAN"]

    assert f"Measured at {run.state.images:,} images, of 16x16:" in card

    # A metric that was not finite is null in its row.
    rows = run.stats
    nothing = dict.fromkeys(measured, None)
    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "stats", lambda files: [{**rows[-1], **nothing}])
        pggan_kit.export(run.directory, "hub-folder", "null")
    assert f"| {measured[0].removeprefix('Metrics/')} |  | " in Path("null/README.md").read_text()

    # The snippet runs.
    code = card.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["images"].shape == (16, 1, 16, 16)
    refused(cli("export", run.directory, "--to", "hub-folder", "--out", "hub"), "name a new folder")
    refused(cli("export", run.directory, "--to", "hub-folder", "--out", "."), r"it has no name, .*; name a new folder")

    # The numbers are of the average and the stage of the generator.
    pggan_kit.export(run.directory, "hub-folder", "early", stage="8x8")
    assert "Measured at 24 images, of 8x8:" in Path("early/README.md").read_text()
    pggan_kit.export(run.directory, "hub-folder", "copy", average="copy", stage="8x8")
    assert "evaluate RUN --stage 8x8 --average copy` measures it" in Path("copy/README.md").read_text()
    assert "| metric |" not in Path("copy/README.md").read_text()
    monkeypatch.setattr(RunDirectory, "stats", lambda files: [row for row in rows if row["images"] <= 24])
    pggan_kit.export(run.directory, "hub-folder", "later")
    assert "None was measured at 16x16 in training" in Path("later/README.md").read_text()

    result = cli("export", run.directory, "--to", "hub-folder")
    assert "a licence is not given" in result.stderr and Path("run-hub/README.md").exists()


@pytest.mark.parametrize("checkpoint", ["last", "fade", "best"])
@pytest.mark.parametrize("metrics", ["[]", "[@metrics.RadialSpectrum()]"])
def test_the_command_of_a_card_measures_its_generator(
    checkpoint: str, metrics: str, train: Train, cli: Callable[..., Result]
) -> None:
    """The run was stopped within its last stage, after the fade."""

    class Stop:
        @hookimpl
        def after_tick(self, state: Any) -> None:
            if state.images == 36:
                raise KeyboardInterrupt

    lines = [f"train.metrics = {metrics}", "evaluation.count = 4", "train.tick = 4", "train.checkpoint_every = 4"]
    lines += ["train.averages = [@averages.HalfLife(), @averages.Copy()]"]
    if checkpoint == "best":
        if metrics == "[]":
            pytest.skip("nothing is best without metrics")
        lines.append("train.keep_best = 'SpectralDistance'")
    with pytest.raises(KeyboardInterrupt):
        train(*lines, plugins=(Stop(),), run_dir="run")
    pggan_kit.export("run", "hub-folder", "hub", checkpoint=checkpoint, average="copy")

    # Its numbers are of the generator's place on the clock.
    card = Path("hub/README.md").read_text()
    (command,) = re.findall(r"`pggan-kit (evaluate RUN .*)` measures it", card)
    assert ("--metric NAME" in command) == (metrics == "[]")
    result = cli(*command.replace("RUN", "run").replace("NAME", "RadialSpectrum").split(), "--json")
    assert result.exit_code == 0, result.stderr
    (row, *_) = json.loads(result.stdout)
    assert (row["images"], row["average"]) == (load_generator("hub").images, "copy")
