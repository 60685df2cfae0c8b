"""Tests of StyleGAN2: its layers and fade in float64, noise, the conformance suite, and training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.networks import make_networks
from helpers.variants import train_once
from torch import Tensor

from pggan_kit.api.train import train
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import draw_noise, perturb
from pggan_plugins.architectures import StyleGAN2
from pggan_plugins.architectures.layers import EqualizedLinear
from pggan_plugins.architectures.stylegan2 import ModulatedConv2d
from pggan_plugins.resampling import Nearest

SMALL: dict[str, Any] = {"style_size": 6, "mapping_layers": 2}


class TestPublished(ArchitectureSuite):
    geometries = ((7, 14, 28), (5, 15, 45))
    batch_sizes = (1, 6)
    bad_arguments = (
        {"channels": 0},
        {"style_size": 0},
        {"mapping_layers": 0},
        {"mapping_lr_multiplier": 0.0},
        {"style_mixing": 1.5},
        {"style_mixing": -0.1},
        {"stddev_group": 0},
        {"conditioning": "labels"},
        {"label_size": 0},
    )

    def make(self) -> StyleGAN2:
        return StyleGAN2(channels=4, **SMALL)


@train_once
class TestWithoutNoise(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    batch_sizes = (2, 3)

    def make(self) -> StyleGAN2:
        return StyleGAN2(channels=4, noise=False, **SMALL)


def leaky_relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def enlarge(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def modulate_and_convolve(
    x: Tensor, styles: Tensor, w: dict[str, Tensor], name: str, gain: float, demodulate: bool
) -> Tensor:
    """Convolve sample by sample, each with weights of its own: Karras et al. 2020, equations 1 and 3."""
    weight, affine, bias = (w[f"{name}.{part}"] for part in ("weight", "affine.weight", "affine.bias"))
    out = []
    for one, style in zip(x, styles, strict=True):
        s = affine @ style / math.sqrt(len(style)) + bias
        own = weight / math.sqrt(weight[0].numel()) * s[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        out.append(F.conv2d(one[None], own * gain, padding=weight.shape[-1] // 2)[0])
    return torch.stack(out)


@pytest.mark.parametrize(("kernel", "demodulate", "up"), [(3, True, False), (3, True, True), (1, False, False)])
def test_modulated_convolution_against_a_loop(kernel: int, demodulate: bool, up: bool) -> None:
    torch.manual_seed(0)
    resampling = Nearest().up(4, 2) if up else None
    conv = ModulatedConv2d(4, 3, kernel, 6, demodulate, gain=1.3, up=resampling).double()
    assert torch.equal(conv.affine.bias, torch.ones(4))
    perturb(conv)
    x = draw_noise(5, 4, 4, 6, dtype=torch.float64)
    styles = draw_noise(5, 6, dtype=torch.float64)
    w = {f"conv.{name}": value for name, value in conv.state_dict().items()}
    wanted = modulate_and_convolve(enlarge(x) if up else x, styles, w, "conv", 1.3, demodulate)
    torch.testing.assert_close(conv(x, styles), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("style", [1e-4, 1.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_modulated_convolution_in_low_precision(style: float, dtype: torch.dtype) -> None:
    """Demodulation takes out any style: its square neither overflows nor rounds to 0."""
    torch.manual_seed(0)
    conv = ModulatedConv2d(16, 16, 3, 4)
    with torch.no_grad():
        conv.affine.weight.zero_()
        conv.affine.bias.fill_(style)
    x = draw_noise(2, 16, 4, 4)
    wanted = ModulatedConv2d(16, 16, 3, 4).double()
    wanted.load_state_dict(conv.state_dict())
    with torch.autocast("cpu", dtype):
        out = conv(x, draw_noise(2, 4))
    exact = wanted(x.double(), draw_noise(2, 4).double()).detach()
    assert out.dtype is dtype
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=0.02 * float(exact.abs().max()))


def run_generator_by_hand(net: Generator, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images of 4x4 and of 8x8, with noise drawn as the network draws it."""
    w = net.state_dict()

    # The mapping network.
    style = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for index in (0, 2):
        weight, bias = (w[f"stem.mapping.layers.{index}.{part}"] for part in ("weight", "bias"))
        style = leaky_relu(style @ weight.T * 0.01 * math.sqrt(2 / weight.shape[1]) + bias * 0.01)

    def apply_layer(x: Tensor, name: str) -> Tensor:
        x = modulate_and_convolve(x, style, w, f"{name}.conv", math.sqrt(2), True)
        noise_map = torch.randn(len(x), 1, *x.shape[2:], dtype=torch.float64)
        return leaky_relu(x + w[f"{name}.noise_strength"] * noise_map + w[f"{name}.bias"])

    def make_image(x: Tensor, name: str) -> Tensor:
        return modulate_and_convolve(x, style, w, f"{name}.image.conv", 1.0, False) + w[f"{name}.image.bias"]

    # The stem, and one block, whose image is added to the stem's.
    x = apply_layer(w["stem.constant"][None].repeat(len(z), 1, 1, 1), "stem.layer")
    small = make_image(x, "stem")
    x = apply_layer(apply_layer(enlarge(x), "blocks.1.first"), "blocks.1.second")
    return small, enlarge(small) + make_image(x, "blocks.1")


@pytest.mark.parametrize("alpha", [None, 0.0, 0.3])
def test_generator_against_a_transcription(alpha: float | None) -> None:
    """In the fade, alpha multiplies the new stage's own image."""
    generator, _ = make_networks(StyleGAN2(channels={4: 5, 8: 4}, **SMALL), training=False, bridged=alpha is not None)
    z = draw_noise(3, 5, dtype=torch.float64)
    torch.manual_seed(1)
    images = generator(z, None, None if alpha is None else torch.tensor(alpha))
    torch.manual_seed(1)
    small, image = run_generator_by_hand(generator, z)
    if alpha is not None:
        image = enlarge(small) + float(torch.tensor(alpha)) * (image - enlarge(small))
    torch.testing.assert_close(images, image, rtol=1e-9, atol=1e-9)


def test_discriminator_against_a_transcription() -> None:
    _, discriminator = make_networks(StyleGAN2(channels={4: 5, 8: 4}, **SMALL), training=False)
    w = discriminator.state_dict()

    def linear(x: Tensor, name: str, gain: float = math.sqrt(2)) -> Tensor:
        weight = w[f"{name}.weight"] * gain / math.sqrt(w[f"{name}.weight"][0].numel())
        bias = w.get(f"{name}.bias")
        return x @ weight.T + bias if x.dim() == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    x = leaky_relu(linear(images, "from_image.0"))

    # The residual block.
    branch = leaky_relu(linear(x, "blocks.1.branch.0"))
    branch = leaky_relu(F.avg_pool2d(linear(branch, "blocks.1.branch.2"), 2))
    x = (branch + linear(F.avg_pool2d(x, 2), "blocks.1.shortcut.1", 1.0)) / math.sqrt(2)

    # The head.
    spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = leaky_relu(linear(torch.cat([x, spread.expand(4, 1, 4, 4)], 1), "head.conv"))
    x = leaky_relu(linear(x.permute(0, 2, 3, 1).flatten(1), "head.dense"))
    score = linear(x, "head.score", 1.0)[:, 0]
    torch.testing.assert_close(discriminator(images).score, score, rtol=1e-10, atol=1e-10)


def test_the_lr_multiplier_does_not_change_the_first_function() -> None:
    images = []
    for multiplier in (0.01, 1.0):
        stage = make_stages((4,), 1)[0]
        architecture = StyleGAN2(channels=4, mapping_lr_multiplier=multiplier, **SMALL)
        images.append(Generator(architecture, Area(), Area(), 0, 8, stage).eval()(draw_noise(3, 8)))
    torch.testing.assert_close(images[0], images[1])


def test_one_learning_step_moves_the_mapping_by_the_multiplier() -> None:
    """The steps in the weights have a fixed size, as Adam's have."""
    stage = make_stages((4,), 1)[0]
    moved = []
    for multiplier in (0.01, 1.0):
        net = Generator(StyleGAN2(channels=4, mapping_lr_multiplier=multiplier, **SMALL), Area(), Area(), 0, 8, stage)
        layer: Any = net.stem.mapping.layers[0]
        before = layer(draw_noise(3, 8))
        with torch.no_grad():
            layer.weight += 1e-2
            layer.bias += 1e-2
        moved.append(layer(draw_noise(3, 8)) - before)
    torch.testing.assert_close(moved[0], moved[1] * 0.01, rtol=1e-2, atol=1e-6)


def test_the_bias_starts_at_bias_start_whatever_the_multiplier() -> None:
    layer = EqualizedLinear(3, 2, lr_multiplier=0.01, bias_start=1.5)
    torch.testing.assert_close(layer(torch.zeros(1, 3)), torch.full((1, 2), 1.5))


def test_parameters_at_1024() -> None:
    """D has as many as the official code prints for its configuration F; a mapping network has 8 times 512 * 513."""
    stages = make_stages(tuple(4 * 2**level for level in range(9)), 3)
    with torch.device("meta"):
        discriminator = Discriminator(StyleGAN2(), Area(), Area(), 0, stages[0])
        mapping: Any = StyleGAN2().generator_stem(512, stages[0]).mapping
        for stage in stages[1:]:
            discriminator.grow(stage, False)
    assert sum(p.numel() for p in discriminator.parameters()) == 29_012_513
    assert sum(p.numel() for p in mapping.parameters()) == 8 * 512 * 513


def test_noise_starts_without_effect_and_differs_between_samples_and_calls() -> None:
    generator, _ = make_networks(StyleGAN2(channels=4, **SMALL), training=False)
    z = draw_noise(1, 5, dtype=torch.float64).expand(2, 5)
    first = generator(z)
    second = generator(z)
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first, second)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.zero_()
    torch.testing.assert_close(generator(z), generator(z))
    fresh = Generator(StyleGAN2(channels=4, **SMALL), Area(), Area(), 0, 5, make_stages((4,))[0])
    assert float(fresh.stem.layer.noise_strength.detach()) == 0.0


def grow_mixing(style_mixing: float) -> Generator:
    """Return a generator of 4x4, 8x8 and 16x16 in training mode: six layers read styles."""
    stages = make_stages((4, 8, 16), 1)
    architecture = StyleGAN2(channels=4, noise=False, style_mixing=style_mixing, **SMALL)
    net = Generator(architecture, Area(), Area(), 0, 5, stages[0])
    for stage in stages[1:]:
        net.grow(stage, False)
    return net


def test_styles_are_mixed_from_a_random_layer_on() -> None:
    """As often as asked, uniformly over layers 1 to 5, with another latent's style, and only in training."""
    net = grow_mixing(0.9)
    count = 4000
    latents = draw_noise(1, 5).expand(count, 5)
    torch.manual_seed(0)
    styles = net.map_latents(latents)
    own = net.eval().map_latents(latents)
    assert styles is not None and own is not None and styles.shape == own.shape == (count, 6, 6)
    assert bool((own == own[:, :1]).all()), "in inference mode all layers have one style"

    # The first layer that differs from the latent's own style; all before it are equal, and all after it alike.
    differs = (styles != own).any(2)
    mixed = differs.any(1)
    assert not differs[:, 0].any()
    assert float(mixed.double().mean()) == pytest.approx(0.9, abs=0.02)
    assert torch.equal(differs.int().sort(1).values, differs.int())
    changes = 6 - differs[mixed].sum(1)
    counts = torch.bincount(changes, minlength=6)[1:].double()
    assert float((counts / counts.sum() - 0.2).abs().max()) < 0.03
    last = styles[mixed][:, -1]
    assert len(last.unique(dim=0)) == len(last), "each image has a second latent of its own"
    first = torch.arange(6) >= changes[:, None]
    assert torch.equal(styles[mixed][first], last.repeat_interleave(6 - changes, 0))


def test_styles_are_mixed_while_the_stem_is_frozen() -> None:
    """A frozen stem is in inference mode while the other pieces train."""
    net = grow_mixing(1.0)
    net.freeze([built.piece for built in net.pieces() if built.piece.name == "stem"])
    styles = net.train().map_latents(draw_noise(20, 5))
    assert styles is not None and not net.stem.training
    assert bool((styles[:, 0] != styles[:, -1]).any(1).all())
    styles = net.eval().map_latents(draw_noise(20, 5))
    assert styles is not None and torch.equal(styles[:, 0], styles[:, -1])


def test_without_mixing_training_is_inference() -> None:
    net = grow_mixing(0.0)
    latents = draw_noise(3, 5)
    torch.testing.assert_close(net(latents), net.eval()(latents), rtol=0, atol=0)


def test_each_layer_reads_its_own_style() -> None:
    """A style changes its layer and those after it; a layer to an image shares that of the next stage's first one."""
    net = grow_mixing(0.9).eval()
    perturb(net)
    latents = draw_noise(2, 5)
    styles = net.map_latents(latents)
    assert styles is not None
    before = net.synthesise(latents, styles=styles, record=True)
    for layer in range(6):
        moved = styles.clone()
        moved[:, layer] += 1
        after = net.synthesise(latents, styles=moved, record=True)
        changed = [
            (not torch.equal(a.maps, b.maps), not torch.equal(a.image, b.image))
            for a, b in zip(before.features, after.features, strict=True)
        ]
        # Style 2k - 1 and 2k are of stage k's convolutions, 2k + 1 of its layer to the image.
        wanted = [((layer + 1) // 2 <= stage, layer // 2 <= stage) for stage in range(3)]
        assert changed == wanted, layer


CONFIG = TINY.replace("PGGAN", "StyleGAN2")
LINES = (
    "train.loss = @losses.WGANGP()",
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 8",
    "architectures.StyleGAN2.style_size = 8",
    "architectures.StyleGAN2.mapping_layers = 2",
)


def test_trains_with_a_gradient_penalty(tiny: Callable[..., str], stub: str) -> None:
    run = train(tiny(*LINES, base=CONFIG), plugins=[stub])
    assert run.state.steps == 6
    for net in (run.state.generator, run.state.ema, run.state.discriminator):
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
    strengths = [p for n, p in run.state.generator.named_parameters() if n.endswith("noise_strength")]
    assert len(strengths) == 3
    assert all(float(p.detach()) != 0 for p in strengths)
    assert torch.equal(run.generate(run.fixed_latents(3)), run.generate(run.fixed_latents(3)))
