"""Tests of PGGAN's options: each against a transcription in float64, in the conformance suite, and in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.networks import make_networks
from helpers.paths import ROOT
from helpers.variants import train_once
from PIL import Image
from torch import Tensor, nn

import pggan_kit
from pggan_kit.api import prepare as api
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.batches import declare_batches
from pggan_kit.layers.resampling import Area, Downsample
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_plugins.architectures import PGGAN, ResNet
from pggan_plugins.architectures.layers import Layers
from pggan_plugins.architectures.minibatch import MinibatchDiscrimination, NeighbourStddev
from pggan_plugins.resampling import Learned, PixelShuffle

pytestmark = pytest.mark.usefixtures("few_calibrations")

CLASSIC = {
    "generator_norm": "batch",
    "discriminator_norm": "layer",
    "generator_activation": "relu",
    "equalized_lr": False,
    "latent_norm": False,
    "output": "tanh",
    "minibatch": "none",
}
OTHERS = {
    "generator_norm": "layer",
    "discriminator_norm": "batch",
    "discriminator_activation": "relu",
    "minibatch": "discrimination",
    "pool": "before_activation",
}
FOREIGN = {
    "stem_bias": "pixel",
    "leak": 0.1,
    "minibatch": "neighbour_stddev",
    "stddev_group": 2,
    "output": "tanh_after_fade",
}
PLAIN = {"generator_norm": "none", "stddev_group": 2}
SPECTRAL = {"generator_norm": "none", "discriminator_norm": "spectral", "minibatch": "discrimination"}
TABLE1 = ROOT / "experiments" / "table1"


@train_once
class TestClassic(ArchitectureSuite):
    geometries = ((7, 14, 28), (5, 15, 45))
    batch_sizes = (1, 6)
    bad_arguments = (
        {"channels": 0},
        {"channels": {4: 8, 8: 0}},
        {"generator_norm": "spectral"},
        {"discriminator_norm": "pixel"},
        {"generator_activation": "tanh"},
        {"discriminator_activation": "elu"},
        {"output": "sigmoid"},
        {"minibatch": "std"},
        {"stem_bias": "image"},
        {"leak": 1.0},
        {"leak": -0.1},
        {"stddev_group": 0},
        {"pool": "never"},
        {"conditioning": "labels"},
        {"label_size": 0},
    )

    def make(self) -> PGGAN:
        return PGGAN(channels=4, **CLASSIC)


class TestOthers(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    batch_sizes = (2, 3)

    def make(self) -> PGGAN:
        return PGGAN(channels=4, **OTHERS)


@train_once
class TestForeign(TestOthers):
    def make(self) -> PGGAN:
        return PGGAN(channels=4, **FOREIGN)


class TestSpectral(TestOthers):
    def make(self) -> PGGAN:
        return PGGAN(channels=4, **SPECTRAL)

    def resampling(self) -> Learned:
        return Learned()


class ByHand:
    """The layers of the paper's table 2 with options, from a network's weights alone."""

    def __init__(self, net: nn.Module, norm: str, activation: str, equalized: bool, leak: float = 0.2) -> None:
        self.weights = net.state_dict()
        self.norm = norm
        self.equalized = equalized
        self.act = torch.relu if activation == "relu" else lambda x: torch.where(x > 0, x, leak * x)

    def linear(self, x: Tensor, name: str, gain: float, padding: int = 0) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        if self.equalized:
            weight = weight * gain / math.sqrt(weight[0].numel())
        y = F.conv2d(x, weight, padding=padding) if weight.dim() == 4 else x @ weight.T
        bias = self.weights.get(f"{name}.bias", torch.zeros(len(weight), dtype=x.dtype))
        return y + bias.view(-1, *[1] * (y.dim() - 2))

    def norm_and_activation(self, x: Tensor, name: str) -> Tensor:
        if self.norm in ("batch", "layer"):
            others = list(range(1, x.dim()))
            if self.norm == "batch":
                others = [d for d in range(x.dim()) if d != 1]
            mean = x.mean(others, keepdim=True)
            variance = (x - mean).square().mean(others, keepdim=True)
            gain, offset = (self.weights[f"{name}.0.{p}"].view(-1, *[1] * (x.dim() - 2)) for p in ("weight", "bias"))
            x = (x - mean) / (variance + 1e-5).sqrt() * gain + offset
        x = self.act(x)
        if self.norm == "pixel":
            x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
        return x

    def layer(self, x: Tensor, name: str, after: str, gain: float = math.sqrt(2)) -> Tensor:
        return self.norm_and_activation(self.linear(x, name, gain, 1), after)


def run_generator_by_hand(net: Generator, z: Tensor, options: dict[str, Any]) -> Tensor:
    norm = options.get("generator_norm", "pixel")
    activation = options.get("generator_activation", "leaky_relu")
    hand = ByHand(net, norm, activation, options.get("equalized_lr", True), options.get("leak", 0.2))
    if options.get("latent_norm", True):
        z = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()

    # The stem.
    x = hand.linear(z, "stem.dense", math.sqrt(2) / 4).view(len(z), -1, 4, 4)
    if "stem.bias" in hand.weights:
        x = x + hand.weights["stem.bias"]
    x = hand.layer(hand.norm_and_activation(x, "stem.after_dense"), "stem.conv", "stem.after_conv")

    # The block, and the layer to images.
    x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = hand.layer(hand.layer(x, "blocks.1.0", "blocks.1.1"), "blocks.1.2", "blocks.1.3")
    output = options.get("output", "linear")
    image = hand.linear(x, "to_image.0" if output == "tanh" else "to_image", 1.0)
    return image if output == "linear" else image.tanh()


def run_discriminator_by_hand(net: Discriminator, images: Tensor, options: dict[str, Any]) -> Tensor:
    norm = options.get("discriminator_norm", "none")
    activation = options.get("discriminator_activation", "leaky_relu")
    hand = ByHand(net, norm, activation, options.get("equalized_lr", True), options.get("leak", 0.2))

    # The layer from images, and the block.
    x = hand.act(hand.linear(images, "from_image.0", math.sqrt(2)))
    x = hand.layer(x, "blocks.1.0", "blocks.1.1")
    if options.get("pool") == "before_activation":
        x = hand.norm_and_activation(F.avg_pool2d(hand.linear(x, "blocks.1.2", math.sqrt(2), 1), 2), "blocks.1.3")
    else:
        x = F.avg_pool2d(hand.layer(x, "blocks.1.2", "blocks.1.3"), 2)

    # The head.
    minibatch = options.get("minibatch", "stddev")
    if minibatch == "stddev":
        groups = x.view(options.get("stddev_group", 4), -1, *x.shape[1:])
        spread = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).repeat(len(groups))
        x = torch.cat([x, spread.view(-1, 1, 1, 1).expand(-1, 1, 4, 4)], 1)
    if minibatch == "neighbour_stddev":
        x = torch.cat([x, compute_spread_of_neighbours(x, options["stddev_group"])], 1)
    x = hand.layer(x, "head.conv", "head.after_conv")
    x = hand.norm_and_activation(
        hand.linear(x.permute(0, 2, 3, 1).flatten(1), "head.dense", math.sqrt(2)), "head.after_dense"
    )
    if minibatch == "discrimination":
        points = hand.linear(x, "head.discrimination.project", 1.0)
        x = torch.cat([x, compute_closeness(points.view(len(x), 100, 5))], 1)
    return hand.linear(x, "head.score", 1.0)[:, 0]


def compute_spread_of_neighbours(x: Tensor, size: int) -> Tensor:
    """Return a map: the mean, over maps and pixels, of the unbiased deviation within groups that follow each other."""
    maps = torch.zeros(len(x), 1, *x.shape[2:], dtype=x.dtype)
    for start in range(0, len(x), size):
        maps[start : start + size] = (x[start : start + size].var(0) + 1e-8).sqrt().mean()
    return maps


def compute_closeness(points: Tensor) -> Tensor:
    """Compute minibatch discrimination (Salimans et al. 2016, section 3.2) by two loops."""
    rows = [sum(torch.exp(-(one - other).abs().sum(1)) for other in points) for one in points]
    return torch.stack(rows)


@pytest.mark.parametrize("options", [{}, CLASSIC, OTHERS, PLAIN, FOREIGN])
def test_networks_against_a_transcription(options: dict[str, Any]) -> None:
    generator, discriminator = make_networks(PGGAN(channels={4: 5, 8: 4}, **options))
    z = draw_noise(4, 5, dtype=torch.float64)
    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(generator(z), run_generator_by_hand(generator, z, options), rtol=1e-10, atol=1e-10)
    wanted = run_discriminator_by_hand(discriminator, images, options)
    torch.testing.assert_close(discriminator(images).score, wanted, rtol=1e-10, atol=1e-10)


def test_neighbours_of_which_no_group_is_whole_are_one_group() -> None:
    x = draw_noise(6, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(NeighbourStddev(4)(x)[:, 3:], compute_spread_of_neighbours(x, 6))
    assert float(NeighbourStddev(4)(x[:1])[:, 3].abs().max()) == 0
    with declare_batches(2):
        together = NeighbourStddev(3)(x)
        alone = NeighbourStddev(2)(x)
    torch.testing.assert_close(together[:, 3:], compute_spread_of_neighbours(x, 3))
    torch.testing.assert_close(alone[:, 3:], compute_spread_of_neighbours(x, 3))
    (declared,) = PGGAN(minibatch="neighbour_stddev").batch_statistics(make_stages()[0], 6)
    assert declared.group == 6


def test_batch_norm_uses_its_averages_in_inference() -> None:
    generator, _ = make_networks(PGGAN(channels=4, **CLASSIC))
    for _ in range(3):
        generator(draw_noise(8, 5, dtype=torch.float64))
    generator.eval()
    z = draw_noise(5, 5, seed=2, dtype=torch.float64)
    torch.testing.assert_close(generator(z)[:1], generator(z[:1]), rtol=1e-10, atol=1e-10)


def test_batch_norm_leaves_no_bias_before_it() -> None:
    """Batch norm would subtract the bias again, which then would drift."""
    biases = [
        {name for name in net.state_dict() if name.endswith("bias") and "after" not in name and ".1.1." not in name}
        for net in make_networks(PGGAN(channels=4, generator_norm="batch", discriminator_norm="batch"))
    ]
    assert biases[0] == {"blocks.1.3.0.bias", "to_image.bias"}
    assert biases[1] == {"blocks.1.3.0.bias", "from_image.0.bias", "head.score.bias"}


def test_minibatch_discrimination_against_two_loops() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(3, lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False), 4, 2).double()
    x = draw_noise(5, 3, dtype=torch.float64)
    points = (x @ layer.project.weight.T).view(5, 4, 2)
    torch.testing.assert_close(layer(x), torch.cat([x, compute_closeness(points)], 1), rtol=1e-12, atol=1e-12)
    alike = layer(x[:1].expand(5, 3))
    torch.testing.assert_close(alike[:, 3:], torch.full((5, 4), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_minibatch_discrimination_is_not_computed_in_low_precision(dtype: torch.dtype) -> None:
    """Samples that resemble each other differ by less than products in low precision resolve."""
    layer = MinibatchDiscrimination(64, lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False))
    alike = draw_noise(1, 64) + 0.01 * draw_noise(8, 64, seed=1)
    low = alike.to(dtype)
    with torch.no_grad():
        points = (low.double() @ layer.project.weight.double().T).view(8, 100, 5)
        wanted = torch.exp(-(points[:, None] - points[None]).abs().sum(3)).sum(1)
        with torch.autocast("cpu", dtype):
            precise = layer(low.float())
            output = layer(low)
    assert precise.dtype == torch.float32 and output.dtype == dtype
    torch.testing.assert_close(precise[:, 64:].double(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(output[:, 64:], wanted.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_weights_scaled_at_the_start_make_the_same_first_networks() -> None:
    z = draw_noise(4, 8)
    images = draw_noise(4, 1, 8, 8)
    outputs = []
    for equalized in (True, False):
        stages = make_stages((4, 8), 1)
        pair = (PGGAN(channels=4, equalized_lr=equalized), Area(), Area(), 0)
        generator = Generator(*pair, 8, stages[0])
        discriminator = Discriminator(*pair, stages[0])
        for net in (generator, discriminator):
            net.grow(stages[1], False)
        outputs.append((generator(z), discriminator(images).score, generator.stem.conv.weight.detach().std()))
    for drawn, equalized in zip(outputs[1][:2], outputs[0][:2], strict=True):
        torch.testing.assert_close(drawn, equalized)
    assert float(outputs[0][2]) == pytest.approx(1.0, abs=0.2)
    assert float(outputs[1][2]) == pytest.approx(math.sqrt(2 / 36), rel=0.2)


def list_spectral_layers(net: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in net.named_modules() if hasattr(module, "parametrizations")}


def test_spectral_norm_divides_every_weight_by_its_largest_singular_value() -> None:
    _, discriminator = make_networks(PGGAN(channels=6, **SPECTRAL))
    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(100):
            discriminator(images)
    discriminator.eval()
    layers = list_spectral_layers(discriminator)
    assert len(layers) == 7  # from-image, two in the block, 3x3, dense, discrimination, score
    for name, layer in layers.items():
        original = layer.parametrizations.weight.original.detach().flatten(1).numpy()
        largest = np.linalg.svd(original, compute_uv=False)[0]
        weight = layer.weight.detach().flatten(1).numpy()
        np.testing.assert_allclose(weight, original / largest, rtol=1e-3, atol=1e-6, err_msg=name)
        assert layer.scale == 1.0


@pytest.mark.parametrize("resampling", [Learned(), Learned(equalized=False), PixelShuffle()])
@pytest.mark.parametrize("architecture", [PGGAN(channels=6, **SPECTRAL), ResNet(channels=6)])
def test_spectral_norm_divides_the_weights_of_a_learned_resampling(architecture: Any, resampling: Any) -> None:
    """As a map from patches to outputs none enlarges more than by 1, whatever the pair multiplies its weights by."""
    stages = make_stages((4, 8), 1)
    discriminator = Discriminator(architecture, resampling, Area(), 0, stages[0])
    discriminator.grow(stages[1], True)
    bare = [name for name, weight in discriminator.named_parameters() if weight.dim() > 1 and "param" not in name]
    assert bare == []

    images = draw_noise(4, 1, 8, 8)
    with torch.no_grad():
        for _ in range(50):
            discriminator(images, None, torch.tensor(0.5))
    downs = [
        module for module in discriminator.modules() if isinstance(module, Downsample) and list(module.parameters())
    ]
    assert len(downs) == (1 if isinstance(architecture, PGGAN) else 2)
    for down in downs:
        down.eval()
        ones = torch.linalg.svdvals((down.weight * down.scale).detach().flatten(1))
        assert float(ones[0]) == pytest.approx(1.0, rel=1e-3)

    # Another network takes the weights over.
    other = Discriminator(architecture, resampling, Area(), 1, stages[0])
    other.grow(stages[1], True)
    other.load_state_dict(discriminator.state_dict())
    discriminator.eval()
    scores = [net.eval()(images, None, torch.tensor(0.5)).score for net in (discriminator, other)]
    torch.testing.assert_close(*scores, rtol=0, atol=0)


def test_spectral_norm_takes_one_step_a_call_and_none_in_inference() -> None:
    torch.manual_seed(0)
    layer = Layers("relu", "spectral", True).conv(3, 4).double()
    norm = layer.parametrizations.weight[0]
    x = draw_noise(2, 3, 5, 5, dtype=torch.float64)
    weight = layer.parametrizations.weight.original.detach().flatten(1)
    v = norm._v.clone()
    u = F.normalize(weight @ v, dim=0)
    wanted = F.normalize(weight.T @ u, dim=0)
    assert float((wanted - v).abs().max()) > 1e-9

    output = layer(x)
    torch.testing.assert_close(norm._v, wanted, rtol=1e-12, atol=1e-13)
    by_hand = F.conv2d(x, (weight / (u @ weight @ wanted)).view(4, 3, 3, 3), padding=1)
    torch.testing.assert_close(output, by_hand, rtol=1e-12, atol=1e-12)

    layer.eval()
    layer(x)
    torch.testing.assert_close(norm._v, wanted, rtol=1e-12, atol=1e-13)


def test_channels_must_cover_the_base_size() -> None:
    with pytest.raises(ValueError, match=r"^channels has no value for height 4"):
        PGGAN(channels={8: 4}).to_image(make_stages((4,))[0])


WGANGP = (
    "train.loss = @losses.WGANGP()",
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 8",
)


@pytest.mark.parametrize("options", [CLASSIC, OTHERS, SPECTRAL], ids=["classic", "others", "spectral"])
def test_trains_with_a_gradient_penalty(options: dict[str, Any], train: Callable[..., Any]) -> None:
    run = train(*WGANGP, *(f"architectures.PGGAN.{name} = {value!r}" for name, value in options.items()))
    assert run.state.steps == 6
    for net in (run.state.generator, run.state.ema, run.state.discriminator):
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())


# n_critic, batch, lr, beta2, latents and drift of each row, from the paper and its released code.
ROWS: dict[str, tuple[int, int, float, float, int, bool]] = {
    "a": (5, 64, 1e-4, 0.9, 128, False),
    "b": (5, 64, 1e-4, 0.9, 128, False),
    "c": (5, 16, 1e-4, 0.9, 128, False),
    "d": (1, 16, 1e-4, 0.99, 512, True),
    "e_star": (1, 16, 1e-4, 0.99, 512, True),
    "e": (1, 16, 1e-4, 0.99, 512, True),
    "f": (1, 16, 1e-3, 0.99, 512, True),
    "g": (1, 16, 1e-3, 0.99, 512, True),
    "h": (1, 16, 1e-3, 0.99, 512, True),
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    generator = np.random.default_rng(0)
    for index in range(6):
        picture = generator.integers(0, 256, (20, 17, 3), dtype=np.uint8)
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{index}.png")
    return f"FOLDER = '{tmp_path / 'pictures'}'"


@pytest.mark.parametrize("row", ROWS)
def test_rows_of_table_1(row: str, folder: str) -> None:
    prepared = api.prepare(TABLE1 / f"{row}.gin", [folder])
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    architecture: Any = experiment.architecture
    optimizer: Any = experiment.discriminator_optimizer
    penalties = [type(penalty).__name__ for penalty in experiment.loss.penalties]

    # The training settings.
    settings = (experiment.update.n_critic, schedule.stages[-1].batch_size, optimizer.lr, optimizer.beta2)
    assert (*settings, experiment.latent_size, "Drift" in penalties) == ROWS[row]
    assert penalties[0] == "GradientPenalty"

    # The networks.
    classic = row in "abc"
    norms = (architecture.generator_layers.norm, architecture.discriminator_layers.norm)
    assert norms == (("batch", "layer") if classic else ("pixel" if row in "gh" else "none", "none"))
    assert architecture.generator_layers.kind == ("relu" if classic else "leaky_relu")
    assert architecture.discriminator_layers.kind == "leaky_relu"
    assert (architecture.output, architecture.latent_norm) == (
        ("tanh_after_fade", False) if classic else ("linear", True)
    )
    assert architecture.generator_layers.equalized_lr == architecture.discriminator_layers.equalized_lr
    assert architecture.generator_layers.equalized_lr == (row in "fgh")
    minibatch = {"e_star": "discrimination"}.get(row, "none" if row in "abcd" else "stddev")
    assert architecture.minibatch == minibatch
    widths = [architecture.width(stage) for stage in schedule.stages]
    assert widths == ([512, 512, 512, 512, 256, 128] if row == "h" else [512, 512, 256, 128, 64, 32])

    # The schedule.
    grown = [stage.budget for stage in schedule.stages[:-1]]
    assert grown == ([0] * 5 if row == "a" else [800_000, *[1_600_000] * 4])
    assert schedule.total == (19_000_000 if row == "h" else 10_000_000)


@pytest.mark.parametrize("row", ["a", "b", "e_star", "h"])
def test_rows_of_table_1_train(row: str, folder: str, tmp_path: Path) -> None:
    small = [
        folder,
        "TOTAL = 40",
        "schedule.sizes = (4, 8)",
        "schedule.batch_size = 4",
        "schedule.fade_images = 8",
        "schedule.stable_images = 8" if row != "a" else "schedule.stable_images = {4: 0, 8: 40}",
        "architectures.PGGAN.channels = 4",
        "train.observers = []",
        "train.latent_size = 8",
        "train.device = 'cpu'",
    ]
    run = pggan_kit.train(TABLE1 / f"{row}.gin", small, run_dir=tmp_path / "run")
    assert run.state.images == 40
    if row == "a":
        assert run.state.starts == [0, 0]
