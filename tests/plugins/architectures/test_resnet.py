"""Tests of ResNet: the blocks' formulas in float64, spectral norm, the conformance suite, and training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.networks import make_networks
from helpers.variants import train_once
from torch import Tensor, nn

from pggan_kit.api.train import train
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_plugins.architectures import ResNet

pytestmark = pytest.mark.usefixtures("few_calibrations")


class TestPublished(ArchitectureSuite):
    geometries = ((7, 14, 28), (5, 15, 45))
    batch_sizes = (1, 6)
    bad_arguments = (
        {"channels": 0},
        {"generator_norm": "spectral"},
        {"discriminator_norm": "pixel"},
        {"activation": "tanh"},
        {"output": "sigmoid"},
        {"conditioning": "labels"},
        {"label_size": 0},
    )

    def make(self) -> ResNet:
        return ResNet(channels=4)


@train_once
class TestOthers(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    batch_sizes = (1, 3)

    def make(self) -> ResNet:
        return ResNet(
            channels=4,
            generator_norm="pixel",
            discriminator_norm="layer",
            activation="leaky_relu",
            equalized_lr=True,
            latent_norm=True,
            output="linear",
        )


class TestPlain(TestOthers):
    def make(self) -> ResNet:
        return ResNet(channels=4, generator_norm="layer", discriminator_norm="batch")


def normalise_batch(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean((0, 2, 3), keepdim=True)
    gain, offset = (weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * gain + offset


def test_generator_against_a_transcription() -> None:
    """Dense; up to 8x8 by one residual block with batch norm; batch norm, ReLU, 3x3, tanh."""
    generator, _ = make_networks(ResNet(channels={4: 5, 8: 4}))
    w = generator.state_dict()
    z = draw_noise(4, 5, dtype=torch.float64)

    x = (z @ w["stem.dense.weight"].T + w["stem.dense.bias"]).view(4, 5, 4, 4)

    # The block, normalised and activated before its convolutions.
    large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    shortcut = F.conv2d(large, w["blocks.1.shortcut.0.weight"])
    y = torch.relu(normalise_batch(x, w, "blocks.1.branch.0.0")).repeat_interleave(2, 2).repeat_interleave(2, 3)
    y = F.conv2d(y, w["blocks.1.branch.1.weight"], padding=1)
    y = F.conv2d(torch.relu(normalise_batch(y, w, "blocks.1.branch.2.0")), w["blocks.1.branch.3.weight"], padding=1)

    # The layer to images.
    x = torch.relu(normalise_batch(shortcut + y, w, "to_image.0.0"))
    image = F.conv2d(x, w["to_image.1.0.weight"], w["to_image.1.0.bias"], padding=1).tanh()
    torch.testing.assert_close(generator(z), image, rtol=1e-10, atol=1e-10)
    assert not any(name.endswith("branch.1.bias") for name in w)


def test_discriminator_against_a_transcription() -> None:
    """Pre-activation blocks with spectral norm: ReLU, 3x3, ReLU, 3x3, average, beside average, 1x1; sum over pixels."""
    _, discriminator = make_networks(ResNet(channels={4: 5, 8: 4}))
    discriminator.eval()

    def normalise_weight(name: str) -> tuple[Tensor, Tensor]:
        original = discriminator.get_parameter(f"{name}.parametrizations.weight.original").detach()
        norm = discriminator.get_submodule(f"{name}.parametrizations.weight.0")
        sigma = norm._u @ original.flatten(1) @ norm._v
        return original / sigma, discriminator.get_parameter(f"{name}.bias").detach()

    def conv(x: Tensor, name: str) -> Tensor:
        weight, bias = normalise_weight(name)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)

    images = draw_noise(4, 3, 8, 8, dtype=torch.float64)
    x = conv(images, "from_image")
    y = conv(torch.relu(conv(torch.relu(x), "blocks.1.branch.1")), "blocks.1.branch.3")
    x = F.avg_pool2d(y, 2) + conv(F.avg_pool2d(x, 2), "blocks.1.shortcut.1")
    x = x + conv(torch.relu(conv(torch.relu(x), "head.block.branch.1")), "head.block.branch.3")
    weight, bias = normalise_weight("head.score")
    score = torch.relu(x).sum((2, 3)) @ weight.T + bias
    torch.testing.assert_close(discriminator(images).score, score[:, 0], rtol=1e-10, atol=1e-10)


def test_every_weight_of_d_has_a_largest_singular_value_of_1() -> None:
    _, discriminator = make_networks(ResNet(channels=6))
    images = draw_noise(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(100):
            discriminator(images)
    discriminator.eval()
    plain = [n for n, p in discriminator.named_parameters() if p.dim() > 1 and not n.endswith("weight.original")]
    assert plain == []

    for name, module in discriminator.named_modules():
        if hasattr(module, "parametrizations"):
            largest = np.linalg.norm(module.weight.detach().flatten(1).numpy(), 2)
            assert largest == pytest.approx(1.0, rel=1e-3), name


def test_the_cheaper_order_of_the_shortcut_is_the_same() -> None:
    """1x1 and then up is up and then 1x1, where up treats all channels alike."""
    generator, _ = make_networks(ResNet(channels=4))
    shortcut = generator.blocks["1"].shortcut
    x = draw_noise(2, 4, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(shortcut(x), shortcut[0](shortcut[1](x)), rtol=1e-12, atol=1e-12)


def test_weights_at_the_start() -> None:
    """N(0, gain^2 / fan-in) without a scale at run time, or N(0, 1) with one."""
    stages = make_stages((4, 8), 3)
    for equalized in (False, True):
        torch.manual_seed(0)
        block: Any = ResNet(channels=64, equalized_lr=equalized).generator_block(*stages, Area())
        for conv, gain, fan_in in (
            (block.branch[1], math.sqrt(2), 576),
            (block.branch[3], 1.0, 576),
            (block.shortcut[0], 1.0, 64),
        ):
            scale = gain / math.sqrt(fan_in)
            wanted = (1.0, scale) if equalized else (scale, 1.0)
            assert (float(conv.weight.detach().std()), conv.scale) == pytest.approx(wanted, rel=0.05)


CONFIG = TINY.replace("PGGAN", "ResNet")
LINES = (
    "train.loss = @losses.WGANGP()",
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 8",
)


@pytest.mark.parametrize("norm", ["spectral", "batch", "layer", "none"])
def test_trains_with_a_gradient_penalty(norm: str, tiny: Callable[..., str], stub: str) -> None:
    line = f"architectures.ResNet.discriminator_norm = {norm!r}"
    run = train(tiny(*LINES, line, base=CONFIG), plugins=[stub])
    assert run.state.steps == 6
    nets: list[nn.Module] = [run.state.generator, run.state.ema, run.state.discriminator]
    assert all(bool(value.isfinite().all()) for net in nets for value in net.state_dict().values())

    # The averaged generator has running means of its own.
    average = run.state.ema.state_dict()
    current = run.state.generator.state_dict()
    running = [name for name in current if name.endswith("running_mean")]
    assert len(running) == 3
    assert all(bool(average[name].any()) and bool(current[name].any()) for name in running)
