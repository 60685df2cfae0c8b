"""Checkpoints of pytorch_GAN_zoo, against its networks written down again in float64 from their documented facts."""

from __future__ import annotations

import math
import pickle
import re
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import Result
from helpers.paths import STUB_PLUGIN
from torch import Tensor

import pggan_kit
from pggan_kit import RunError
from pggan_kit.api.import_weights import import_weights
from pggan_kit.api.prepare import prepare_run
from pggan_kit.runs.state import TrainState
from pggan_plugins.importers.pytorch_gan_zoo import PyTorchGANZoo

WIDTHS = (24, 23, 22, 21, 20, 19, 18, 17, 16)
"""Numbers of maps; with much fewer, pixel norm makes float32's rounding as large as the images."""
LATENT_SIZE = 9

Weights = dict[str, Tensor]

SHORT = ("schedule.fade_images = {4: 0, 8: 20}", "schedule.stable_images = 8", "schedule.batch_size = 4")
"""Overrides of the schedule of an import, for runs that go on with it."""


# The networks there.


def draw_generator(depth: int, channels: int = 3) -> Weights:
    shapes = {"formatLayer": (16 * WIDTHS[0], LATENT_SIZE), "groupScale0.0": (WIDTHS[0], WIDTHS[0], 3, 3)}
    for scale in range(depth):
        shapes[f"scaleLayers.{scale}.0"] = (WIDTHS[scale + 1], WIDTHS[scale], 3, 3)
        shapes[f"scaleLayers.{scale}.1"] = (WIDTHS[scale + 1], WIDTHS[scale + 1], 3, 3)
    for scale in range(depth + 1):
        shapes[f"toRGBLayers.{scale}"] = (channels, WIDTHS[scale], 1, 1)
    return draw_weights(shapes)


def draw_discriminator(depth: int, channels: int = 3, stddev: bool = True, outputs: int = 1) -> Weights:
    first = WIDTHS[0]
    shapes = {"groupScaleZero.0": (first, first + stddev, 3, 3), "groupScaleZero.1": (first, 16 * first)}
    shapes["decisionLayer"] = (outputs, first)
    for scale in range(depth):
        shapes[f"scaleLayers.{scale}.0"] = (WIDTHS[scale + 1], WIDTHS[scale + 1], 3, 3)
        shapes[f"scaleLayers.{scale}.1"] = (WIDTHS[scale], WIDTHS[scale + 1], 3, 3)
    for scale in range(depth + 1):
        shapes[f"fromRGBLayers.{scale}"] = (WIDTHS[scale], channels, 1, 1)
    return draw_weights(shapes)


def draw_weights(shapes: dict[str, tuple[int, ...]]) -> Weights:
    """Draw normal weights, and biases, which all layers have."""
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.module.weight"] = torch.randn(shape)
        weights[f"{name}.module.bias"] = torch.randn(shape[0])
    return weights


class There:
    """What that project's networks compute, in float64: a layer is `(weight * x + bias) * sqrt(2 / fan-in)`."""

    def __init__(self, weights: Weights, leak: float = 0.2, equalized: bool = True) -> None:
        self.weights = {name: value.double() for name, value in weights.items()}
        self.leak = leak
        self.equalized = equalized
        self.depth = sum(name.startswith(("toRGB", "fromRGB")) for name in weights) // 2 - 1

    def layer(self, x: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.module.weight"]
        bias = self.weights[f"{name}.module.bias"]
        if weight.dim() == 2:
            y = x @ weight.T + bias
        else:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2) + bias.view(-1, 1, 1)
        return y * math.sqrt(2 / weight[0].numel()) if self.equalized else y

    def activate(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.leak * x)

    def generate(self, latents: Tensor, alpha: float, tanh: bool = False) -> Tensor:
        """alpha is the share of the old path; tanh comes last."""
        x = normalise(latents.double())
        x = normalise(self.activate(self.layer(x, "formatLayer")).view(len(x), -1, 4, 4))
        x = normalise(self.activate(self.layer(x, "groupScale0.0")))
        previous = x
        for scale in range(self.depth):
            previous = x
            x = double_size(x)
            for index in range(2):
                x = normalise(self.activate(self.layer(x, f"scaleLayers.{scale}.{index}")))
        image = self.layer(x, f"toRGBLayers.{self.depth}")
        if alpha > 0:
            old = double_size(self.layer(previous, f"toRGBLayers.{self.depth - 1}"))
            image = alpha * old + (1 - alpha) * image
        return image.tanh() if tanh else image

    def judge(self, images: Tensor, alpha: float, stddev: bool = True) -> Tensor:
        """The first growth has no old path."""
        images = images.double()
        x = self.activate(self.layer(images, f"fromRGBLayers.{self.depth}"))
        for scale in reversed(range(self.depth)):
            for index in range(2):
                x = self.activate(self.layer(x, f"scaleLayers.{scale}.{index}"))
            x = halve_size(x)
            if scale == self.depth - 1 and alpha > 0 and self.depth > 1:
                old = self.activate(self.layer(halve_size(images), f"fromRGBLayers.{self.depth - 1}"))
                x = alpha * old + (1 - alpha) * x
        if stddev:
            x = torch.cat([x, spread_of_neighbours(x)], 1)
        x = self.activate(self.layer(x, "groupScaleZero.0"))
        x = self.activate(self.layer(x.flatten(1), "groupScaleZero.1"))
        return self.layer(x, "decisionLayer")[:, 0]


def normalise(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def double_size(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def halve_size(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def spread_of_neighbours(x: Tensor) -> Tensor:
    """Return a map: groups of 4 samples that follow each other, or of all; the unbiased deviation; 0 of a sample."""
    size = 4 if len(x) % 4 == 0 else len(x)
    maps = torch.zeros(len(x), 1, 4, 4, dtype=torch.float64)
    for start in range(0, len(x), size):
        group = x[start : start + size]
        if size > 1:
            deviations = (group - group.mean(0)).square().sum(0) / (size - 1)
            maps[start : start + size] = (deviations + 1e-8).sqrt().mean()
    return maps


# Its checkpoints.


@pytest.fixture
def save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`save(depth, alpha, ...)` writes a checkpoint of random networks, with an object of that project in it."""
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("models.utils.config")
    base_config = type("BaseConfig", (), {"__module__": module.__name__})
    module.BaseConfig = base_config  # type: ignore[attr-defined]

    # As that project writes it, with an object of a class of its own.
    def write(depth: int, alpha: float = 0.0, legacy: bool = False, **settings: Any) -> Path:
        torch.manual_seed(depth)
        config = base_config()
        vars(config).update({"alpha": alpha, "lossCriterion": "WGANGP", "attribKeysOrder": None, **settings})
        content = {
            "config": config,
            "netG": draw_generator(depth),
            "netD": draw_discriminator(depth),
            "avgG": draw_generator(depth),
        }
        return write_content(content, legacy)

    def write_content(content: dict[str, Any], legacy: bool = False) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("models", "models.utils"):
                patch.setitem(sys.modules, name, types.ModuleType(name))
            patch.setitem(sys.modules, module.__name__, module)
            torch.save(content, "zoo.pt", _use_new_zipfile_serialization=not legacy)
        return Path("zoo.pt")

    write.content = write_content  # type: ignore[attr-defined]
    return write


def read_weights(path: Path) -> dict[str, Any]:
    content = torch.load(path, weights_only=False, pickle_module=_Reader)
    assert isinstance(content, dict)
    return content


class _Reader:
    """A pickle module for which that project's class is a namespace."""

    __name__ = "pickle"
    load = staticmethod(pickle.load)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name == "BaseConfig":
                return types.SimpleNamespace
            return super().find_class(module, name)


def load_state(run: Path) -> tuple[TrainState, Tensor]:
    """Return the state of an imported run at its checkpoint, and the alpha of its networks."""
    prepared, files = prepare_run(run, ())
    state = prepared.state(prepared.resolve_schedule())
    saved = files.checkpoints().load_last()
    state.load_snapshot(saved)
    return state, torch.tensor(saved.alpha)


@pytest.mark.parametrize(
    ("depth", "alpha"),
    [
        *[(0, 0.0), (1, 0.0), (1, 0.3), (2, 0.0), (2, 0.3), (4, 1.0)],
        *[pytest.param(depth, alpha, marks=pytest.mark.slow) for depth in (3, 5, 6, 7, 8) for alpha in (0.0, 0.6)],
    ],
)
@torch.no_grad()
def test_networks_compute_what_they_computed_there(depth: int, alpha: float, save: Callable[..., Path]) -> None:
    path = save(depth, alpha, leakyReluLeak=0.15)
    run = import_weights(path, run_dir="run")
    there = read_weights(path)
    size = 4 * 2**depth
    latents = torch.randn(2 if depth < 6 else 1, LATENT_SIZE)

    wanted = There(there["avgG"], 0.15).generate(latents, alpha)
    torch.testing.assert_close(pggan_kit.load_generator(run)(latents).double(), wanted, rtol=0, atol=1e-4)

    state, new_share = load_state(run)
    share = new_share if alpha > 0 else None
    wanted = There(there["netG"], 0.15).generate(latents, alpha)
    torch.testing.assert_close(state.generator(latents, None, share).double(), wanted, rtol=0, atol=1e-4)

    # D's statistic of the batch for one sample, one group, several groups, and a number that 4 does not divide.
    assert (state.discriminator.bridge is not None) == (alpha > 0 and depth > 1)
    discriminator_share = share if depth > 1 else None
    for count in (1, 4, 8, 6) if depth < 4 else (2,):
        images = torch.randn(count, 3, size, size)
        wanted = There(there["netD"], 0.15).judge(images, alpha)
        scores = state.discriminator(images, None, discriminator_share).score
        torch.testing.assert_close(scores.double(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("depth", "loss"), [(1, "DCGAN"), (2, "MSE")])
@torch.no_grad()
def test_tanh_comes_behind_the_blend_of_a_fade(depth: int, loss: str, save: Callable[..., Path]) -> None:
    """Images of random weights are far from 0, where it matters in which order the two come."""
    path = save(depth, 0.4, lossCriterion=loss)
    run = import_weights(path, run_dir="run")
    latents = torch.randn(2, LATENT_SIZE)
    generator = pggan_kit.load_generator(run)
    for share in (0.4, 0.0, 1.0):
        there = There(read_weights(path)["avgG"])
        images = generator(latents, None, torch.tensor(1 - share))
        torch.testing.assert_close(images.double(), there.generate(latents, share, tanh=True), rtol=0, atol=1e-4)


@torch.no_grad()
def test_other_kinds_of_networks(save: Callable[..., Any]) -> None:
    """Gray images, no statistic of the batch, weights that are not scaled, tanh, the oldest names, no average."""
    torch.manual_seed(0)
    generator = draw_generator(2, channels=1)
    discriminator = draw_discriminator(2, channels=1, stddev=False)
    for weights in (generator, discriminator):
        for value in weights.values():
            value.mul_(0.2)
    old_names = {name.replace(".module.", "."): value for name, value in generator.items()}
    settings = {"alpha": 0.0, "lossCriterion": "DCGAN", "equalizedlR": False}
    path = save.content({"config": settings, "netG": old_names, "netD": discriminator}, legacy=True)
    said: list[str] = []
    run = import_weights(path, run_dir="run", say=said.append)

    latents = torch.randn(3, LATENT_SIZE)
    wanted = There(generator, equalized=False).generate(latents, 0.0, tanh=True)
    torch.testing.assert_close(pggan_kit.load_generator(run)(latents).double(), wanted, rtol=0, atol=1e-4)
    state, _ = load_state(run)
    images = torch.randn(4, 1, 16, 16)
    wanted = There(discriminator, equalized=False).judge(images, 0.0, stddev=False)
    torch.testing.assert_close(state.discriminator(images).score.double(), wanted, rtol=0, atol=1e-4)
    assert any("avgG" in line for line in said)


def test_imported_run_is_sampled_grown_on_and_not_evaluated_without_data(
    save: Callable[..., Path], cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    """Within its fade; D has no old path at the first growth, and the branch leaves it so."""
    path = save(1, 0.3)
    overrides = [option for line in SHORT for option in ("-b", line)]
    result = cli("import", path, "--run-dir", "imported", *overrides)
    assert result.exit_code == 0, result.output
    assert "networks of 8x8, alpha 0.7" in result.stderr
    assert cli("sample", "imported", "--out", "images.npz", "--count", "2").exit_code == 0
    refused(cli("evaluate", "imported", "--metric", "RadialSpectrum"), "bind evaluation.dataset")
    refused(cli("neighbours", "imported", "--out", "near.png"), r"import them with -b 'train\.dataset = ")
    reals = ("-b", "evaluation.dataset = @real/datasets.Stub()", "-b", "real/datasets.Stub.channels = 3")
    evaluate = ("evaluate", "imported", "--metric", "RadialSpectrum", "--count", "8", "--plugin", STUB_PLUGIN)
    result = cli(*evaluate, *reals)
    assert result.exit_code == 0, result.output
    refused(cli("resume", "imported"), "begin a new run with --from")

    # The fade ends, and the networks grow once more.
    widths = "architectures.PGGAN.channels = {4: 24, 8: 23, 16: 4}"
    more = ["schedule.sizes = (4, 8, 16)", widths, "train.dataset = @datasets.Stub()", "datasets.Stub.channels = 3"]
    stub = str(STUB_PLUGIN)
    branch = pggan_kit.train("imported/config.gin", more, start_from="imported", run_dir="branch", plugins=[stub])
    assert branch.state.stage.size == "16x16"
    assert branch.state.starts == [0, 8, 38]


def test_run_with_data_goes_on_by_itself(save: Callable[..., Path]) -> None:
    path = save(1)
    widths = "architectures.PGGAN.channels = {4: 24, 8: 23, 16: 4}"
    bindings = [
        *SHORT,
        "schedule.sizes = (4, 8, 16)",
        widths,
        "train.dataset = @datasets.Stub()",
        "datasets.Stub.channels = 3",
    ]
    run = import_weights(path, bindings, run_dir="run", plugins=[str(STUB_PLUGIN)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resumed = pggan_kit.resume(run)
    assert resumed.state.stage.size == "16x16"


class Trap:
    """An object whose pickle would make a file."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"attribKeysOrder": {"Gender": {"order": 0, "values": ["M", "W"]}}}, "conditioned on attributes"),
        ({"perChannelNormalization": False}, "perChannelNormalization is False"),
        ({"lossCriterion": "Mine"}, "lossCriterion 'Mine' is unknown"),
        ({"leakyReluLeak": 1.5}, "leakyReluLeak is 1.5"),
        ({"alpha": 2.0}, "alpha is 2"),
    ],
)
def test_networks_that_cannot_be_expressed_are_refused(
    change: dict[str, Any], pattern: str, save: Callable[..., Path], cli: Callable[..., Result], refused: Any
) -> None:
    refused(cli("import", save(1, **change)), pattern)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"lossCriterion": ["WGANGP"]}, r"lossCriterion \['WGANGP'\] is unknown"),
        ({"leakyReluLeak": None}, "leakyReluLeak is None, and must be a finite number of at least 0"),
        ({"alpha": "x"}, "alpha is 'x', and must be a finite number"),
        ({"learningRate": math.nan}, "learningRate is nan, and must be a finite number"),
        ({"lambdaGP": None}, "lambdaGP is None, and must be a finite number"),
        ({"lambdaGP": math.inf}, "lambdaGP is inf, and must be a finite number"),
        ({"epsilonD": -5}, "epsilonD is -5, and must be a finite number of at least 0"),
        ({"logisticGradReal": 10**400}, "logisticGradReal is 1000.*, and must be a finite number"),
        ({"equalizedlR": "False"}, "equalizedlR is 'False', and must be True or False"),
        ({"perChannelNormalization": 1}, "perChannelNormalization is 1, and must be True or False"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, Any], pattern: str, save: Callable[..., Path]) -> None:
    with pytest.raises(RunError, match=pattern):
        PyTorchGANZoo().read(save(0, **change))


@pytest.mark.parametrize(
    ("net", "name", "shape"),
    [
        ("netG", "formatLayer.module.bias", (3,)),
        ("netG", "formatLayer.module.weight", (64,)),
        ("netG", "groupScale0.0.module.weight", ()),
        ("netD", "groupScaleZero.0.module.weight", (4,)),
        ("netD", "groupScaleZero.1.module.weight", (4, 20)),
        ("netD", "decisionLayer.module.weight", ()),
        ("netD", "decisionLayer.module.bias", ()),
        ("netG", "toRGBLayers.0.module.weight", (3, 0, 1, 1)),
    ],
)
def test_tensors_of_other_shapes_are_named(
    net: str, name: str, shape: tuple[int, ...], save: Callable[..., Any]
) -> None:
    networks = {"netG": draw_generator(0), "netD": draw_discriminator(0)}
    networks[net][name] = torch.zeros(shape)
    pattern = f"the tensor {name.replace('.module.', '.')} has the shape {shape}: it is of other networks"
    with pytest.raises(RunError, match=re.escape(pattern)):
        PyTorchGANZoo().read(save.content({"config": {}, **networks}))


def test_files_that_are_no_checkpoints_are_refused(
    save: Callable[..., Any], tmp_path: Path, cli: Callable[..., Result], refused: Any
) -> None:
    refused(cli("import", "missing.pt"), "there is no such file")
    Path("text.pt").write_text("no checkpoint")
    refused(cli("import", "text.pt"), "importers of: pytorch_GAN_zoo")
    torch.save({"model": torch.zeros(3)}, "other.pt")
    refused(cli("import", "other.pt"), "no file that an importer reads")

    # A file that was cut, and one with code, which must not be called.
    whole = save(0).read_bytes()
    Path("cut.pt").write_bytes(whole[: len(whole) // 2])
    refused(cli("import", "cut.pt"), "cut off")
    for legacy in (False, True):
        networks = {"netG": draw_generator(0), "netD": draw_discriminator(0)}
        path = save.content({"config": {"trap": Trap()}, **networks}, legacy)
        refused(cli("import", path), "data, never code")
        assert not Path("trapped").exists()

    # Other networks of that project.
    generator = draw_generator(1)
    discriminator = draw_discriminator(1)
    lacking = {name: value for name, value in generator.items() if "scaleLayers.0.1.module.bias" not in name}
    path = save.content({"config": {}, "netG": lacking, "netD": discriminator})
    refused(cli("import", path), r"lacks the tensor scaleLayers\.0\.1\.bias")
    path = save.content({"config": {}, "netG": generator, "netD": draw_discriminator(1, outputs=3)})
    refused(cli("import", path), "3 outputs")
    path = save.content({"config": {}, "netG": {"main.weight": torch.zeros(1)}, "netD": discriminator})
    refused(cli("import", path), "progressive GAN")


def test_bindings_that_do_not_fit_are_refused(
    save: Callable[..., Path], cli: Callable[..., Result], refused: Any
) -> None:
    path = save(1)
    refused(cli("import", path, "-b", "schedule.sizes = (4,)"), "stage 1, and schedule.sizes has 1")
    refused(cli("import", path, "-b", "architectures.PGGAN.channels = 5"), "another architecture")
    gray = ["-b", "train.dataset = @datasets.Stub()", "--plugin", STUB_PLUGIN]
    refused(cli("import", path, *gray), "images of 3 channels, and train.dataset has images of 1")


def test_importer_names_its_project() -> None:
    assert PyTorchGANZoo().name == "pytorch_GAN_zoo"
