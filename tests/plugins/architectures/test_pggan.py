"""Tests of layers against slow float64 formulas, of the paper's sizes, and the suite for every architecture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.variants import train_once
from torch import nn

from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.batches import count_batches, declare_batches
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import draw_noise
from pggan_kit.testing.toys import ToyDataset
from pggan_plugins.architectures import PGGAN, ResNet, SkipPGGAN, StyleGAN2, Tutorial
from pggan_plugins.architectures.layers import EqualizedConv2d, EqualizedLinear, PixelNorm
from pggan_plugins.architectures.minibatch import MinibatchDiscrimination, MinibatchStddev

pytestmark = pytest.mark.usefixtures("few_calibrations")

LABELLED = ToyDataset(classes=3)
PAPER_SIZES = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
PAPER_WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)


@pytest.mark.parametrize("shape", [(3, 5), (2, 7, 3, 4)])
def test_pixel_norm(shape: tuple[int, ...]) -> None:
    x = draw_noise(*shape, dtype=torch.float64) * 3
    array = x.numpy()
    wanted = np.empty_like(array)
    for index in np.ndindex(shape[0], *shape[2:]):
        column = array[(index[0], slice(None), *index[1:])]
        wanted[(index[0], slice(None), *index[1:])] = column / math.sqrt(sum(column**2) / len(column) + 1e-8)
    np.testing.assert_allclose(PixelNorm()(x).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3, 2)])
def test_derivatives_of_pixel_norm(shape: tuple[int, ...]) -> None:
    """First and second derivatives against differences in float64."""
    x = draw_noise(*shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(PixelNorm(), (x,))
    assert torch.autograd.gradgradcheck(PixelNorm(), (x,))


def test_pixel_norm_in_half_precision() -> None:
    """It keeps the dtype, and neither its sums nor those of its derivative overflow."""
    x = (draw_noise(2, 64, 2, 2) * 400).half().requires_grad_()
    out = PixelNorm()(x)
    out.backward(draw_noise(2, 64, 2, 2, seed=1).half())

    wide = x.detach().double().requires_grad_()
    PixelNorm()(wide).backward(draw_noise(2, 64, 2, 2, seed=1).double())
    assert out.dtype is x.grad.dtype is torch.float16
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=0, atol=2e-3 * float(wide.grad.abs().max()))


def test_pixel_norm_of_zeros_has_finite_gradients() -> None:
    x = torch.zeros(2, 3, 1, 1, requires_grad=True)
    PixelNorm()(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())


@pytest.mark.parametrize("batch", [*range(1, 10), 12, 16])
def test_minibatch_stddev(batch: int) -> None:
    """Strided groups, biased variance, the largest divisor of the batch that is at most 4."""
    x = draw_noise(batch, 3, 2, 5, dtype=torch.float64)
    array = x.numpy()
    size = max(g for g in (1, 2, 3, 4) if batch % g == 0)
    groups = batch // size

    # Pixel by pixel, the deviation over the members of a group.
    wanted = np.empty(batch)
    for m in range(groups):
        members = [g * groups + m for g in range(size)]
        deviations = []
        for index in np.ndindex(3, 2, 5):
            values = [array[(i, *index)] for i in members]
            mean = sum(values) / size
            deviations.append(math.sqrt(sum((v - mean) ** 2 for v in values) / size + 1e-8))
        wanted[members] = sum(deviations) / len(deviations)

    output = MinibatchStddev(4)(x)
    assert output.shape == (batch, 4, 2, 5)
    np.testing.assert_array_equal(output[:, :3].numpy(), array)
    np.testing.assert_allclose(output[:, 3].numpy(), np.broadcast_to(wanted[:, None, None], (batch, 2, 5)), rtol=1e-10)


@pytest.mark.parametrize(("batch", "group"), [(4, 4), (5, 1), (7, 1), (14, 2), (16, 4)])
def test_declared_group_of_minibatch_stddev_is_its_group(batch: int, group: int) -> None:
    """It is the root of 1e-8 for any images if and only if it is declared as computed over one sample."""
    for architecture in (PGGAN(channels=4), SkipPGGAN(channels=4), StyleGAN2(channels=4)):
        (declared,) = architecture.batch_statistics(make_stages()[0], batch)
        assert (declared.net, declared.name, declared.group) == ("discriminator", "minibatch stddev", group)
    statistic = MinibatchStddev(4)(draw_noise(batch, 3, 2, 5, dtype=torch.float64))[:, 3]
    assert bool(((statistic - 1e-4).abs() < 1e-12).all()) == (group == 1)
    assert len(statistic[:, 0, 0].unique()) == (1 if group == 1 else batch // group)


def test_other_statistics_of_a_batch_are_declared() -> None:
    stage = make_stages()[-1]

    def list_declared(architecture: Any, samples: int) -> set[tuple[str, str, int]]:
        return {tuple(statistic[:3]) for statistic in architecture.batch_statistics(stage, samples)}

    options = {"channels": 4, "generator_norm": "batch", "minibatch": "discrimination"}
    both = {("generator", "batch norm", 1), ("discriminator", "minibatch discrimination", 1)}
    assert list_declared(PGGAN(**options), 1) == both
    assert list_declared(PGGAN(channels=4, minibatch="none"), 1) == set()
    assert list_declared(PGGAN(channels=4, stddev_group=16), 14) == {("discriminator", "minibatch stddev", 14)}
    assert list_declared(ResNet(channels=4), 1) == {("generator", "batch norm", 1)}
    assert list_declared(ResNet(channels=4, discriminator_norm="batch"), 3) == {
        ("generator", "batch norm", 3),
        ("discriminator", "batch norm", 3),
    }
    assert list_declared(Tutorial(), 2) == {("generator", "batch norm", 2), ("discriminator", "batch norm", 2)}
    for architecture in (Tutorial(), PGGAN(channels=4, discriminator_norm="batch")):
        with pytest.raises(ValueError, match="needs at least 2 samples in a call"):
            architecture.batch_statistics(stage, 1)


@pytest.mark.parametrize("make", [PGGAN, ResNet])
@pytest.mark.parametrize("norm", ["generator_norm", "discriminator_norm"])
def test_batch_norm_of_one_pixel_of_one_sample_is_refused(norm: str, make: Any) -> None:
    """At every size, since some layers stay at the base size; the networks themselves could not be called either."""
    architecture = make(channels=4, **{"generator_norm": "none", "discriminator_norm": "none", norm: "batch"})
    stages = make_stages((1, 2))
    for stage in stages:
        with pytest.raises(ValueError, match=f"^{norm} = 'batch' needs at least 2 samples in a call: "):
            architecture.batch_statistics(stage, 1)
        assert all(statistic.group == 2 for statistic in architecture.batch_statistics(stage, 2))

    pair = (architecture, Area(), Area(), 0)
    generator = Generator(*pair, 8, stages[0])
    discriminator = Discriminator(*pair, stages[0])
    discriminator(generator(draw_noise(2, 8), None, None), None, None)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        discriminator(generator(draw_noise(1, 8), None, None), None, None)


def test_derivatives_of_minibatch_stddev() -> None:
    """First, second and third derivatives against torch's of the composed formula, and against differences."""
    x = draw_noise(8, 3, 2, 2, dtype=torch.float64).requires_grad_()

    def compose(x: torch.Tensor) -> torch.Tensor:
        groups = x.view(4, 2, 3, 2, 2)
        spread = ((groups - groups.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3))
        return torch.cat([x, spread.repeat(4).view(8, 1, 1, 1).expand(8, 1, 2, 2)], 1)

    def differentiate(statistic: Any) -> list[torch.Tensor]:
        (first,) = torch.autograd.grad(statistic(x).tanh().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        return [first, second, *torch.autograd.grad(second.square().sum(), x)]

    for written_out, composed in zip(differentiate(MinibatchStddev()), differentiate(compose), strict=True):
        torch.testing.assert_close(written_out, composed, rtol=1e-11, atol=1e-11)
    assert torch.autograd.gradgradcheck(lambda x: MinibatchStddev()(x)[:, 3], (x,))


@pytest.mark.parametrize("batch", [3, 4, 6, 16])
def test_minibatch_stddev_keeps_batches_apart_that_are_side_by_side(batch: int) -> None:
    first = draw_noise(batch, 3, 4, 4)
    second = 5 * draw_noise(batch, 3, 4, 4, seed=1)
    with declare_batches(2):
        together = MinibatchStddev()(torch.cat([first, second]))
    torch.testing.assert_close(together, torch.cat([MinibatchStddev()(first), MinibatchStddev()(second)]))
    assert count_batches() == 1


def test_minibatch_stddev_sees_a_collapsed_batch() -> None:
    same = draw_noise(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert float(MinibatchStddev()(same)[:, 3].max()) == pytest.approx(1e-4)
    assert float(MinibatchStddev()(draw_noise(8, 3, 4, 4))[:, 3].min()) > 0.5


def test_minibatch_discrimination() -> None:
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(6, lambda i, o: nn.Linear(i, o, bias=False), kernels=3, size=2).double()
    x = draw_noise(4, 6, dtype=torch.float64)
    points = (x @ layer.project.weight.T).detach().numpy().reshape(4, 3, 2)
    output = layer(x).detach().numpy()
    np.testing.assert_array_equal(output[:, :6], x.numpy())
    for i in range(4):
        for b in range(3):
            wanted = sum(math.exp(-sum(abs(points[i, b] - points[j, b]))) for j in range(4))
            assert output[i, 6 + b] == pytest.approx(wanted, rel=1e-10)


def test_equalized_layers_scale_weights_at_run_time() -> None:
    torch.manual_seed(0)
    conv = EqualizedConv2d(5, 7, 3, gain=1.3).double()
    dense = EqualizedLinear(6, 4).double()
    x = draw_noise(2, 5, 4, 6, seed=1, dtype=torch.float64)
    z = draw_noise(3, 6, seed=2, dtype=torch.float64)
    with torch.no_grad():
        conv.bias.normal_()
        dense.bias.normal_()
    wanted = F.conv2d(x, conv.weight * 1.3 / math.sqrt(5 * 9), conv.bias, padding=1)
    torch.testing.assert_close(conv(x), wanted, rtol=1e-12, atol=1e-12)
    wanted = z @ (dense.weight.T * math.sqrt(2) / math.sqrt(6)) + dense.bias
    torch.testing.assert_close(dense(z), wanted, rtol=1e-12, atol=1e-12)


def test_all_weights_of_pggan_start_standard_normal_and_biases_at_zero() -> None:
    stages = make_stages((4, 8), 3)
    for net in make_networks(PGGAN(channels=32), stages, 64):
        for name, param in net.state_dict().items():
            if name.endswith("bias"):
                assert bool((param == 0).all()), name
            elif param.numel() > 2000:
                error = 5 / math.sqrt(param.numel())
                assert float(param.mean()) == pytest.approx(0, abs=error), name
                assert float(param.std()) == pytest.approx(1, abs=error), name


def test_activations_keep_their_size() -> None:
    """With the gain sqrt(2), convolution and leaky ReLU keep the mean square away from the border (x 1.04)."""
    torch.manual_seed(0)
    x = draw_noise(4, 64, 12, 12)
    for _ in range(3):
        x = F.leaky_relu(EqualizedConv2d(64, 64, 3)(x), 0.2)
        x = x[..., 1:-1, 1:-1]
    assert x.square().mean().item() == pytest.approx(1.04**3, rel=0.15)


def make_networks(architecture: PGGAN, stages: Sequence, latent_size: int) -> tuple[Generator, Discriminator]:
    pair = (architecture, Area(), Area(), 0)
    networks = Generator(*pair, latent_size, stages[0]), Discriminator(*pair, stages[0])
    for stage in stages[1:]:
        for net in networks:
            net.grow(stage, False)
    return networks


def count_paper_weights() -> tuple[int, int]:
    """Count the weights and biases of the 1024x1024 networks from the paper's table 2 alone."""

    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    widths = PAPER_WIDTHS

    # Dense to 4x4 (one bias a map), 3x3; then two 3x3 a stage; the last to-image.
    generator = 512 * 512 * 16 + 512 + conv(512, 512, 3)
    generator += sum(conv(a, b, 3) + conv(b, b, 3) for a, b in pairwise(widths))
    generator += conv(16, 3, 1)

    # The mirror image; the head has one map more, and ends in a 4x4 convolution and a dense layer.
    discriminator = conv(3, 16, 1)
    discriminator += sum(conv(b, b, 3) + conv(b, a, 3) for a, b in pairwise(widths))
    discriminator += conv(513, 512, 3) + conv(512, 512, 4) + 512 + 1
    return generator, discriminator


def test_parameters_at_1024() -> None:
    architecture = PGGAN()
    stages = make_stages(PAPER_SIZES, 3)
    assert tuple(architecture.width(stage) for stage in stages) == PAPER_WIDTHS
    with torch.device("meta"):
        networks = make_networks(architecture, stages, 512)
    counts = tuple(sum(param.numel() for param in net.parameters()) for net in networks)
    assert counts == count_paper_weights()
    assert [round(count / 1e6, 2) for count in counts] == [23.07, 23.08]


class TestPGGAN(ArchitectureSuite):
    bad_arguments = (
        {"channels": 0},
        {"channels": {4: 8, 8: 0}},
        {"stddev_group": 0},
        {"pool": "never"},
        {"generator_norm": "nothing"},
    )

    def make(self) -> PGGAN:
        return PGGAN(channels={1: 6, 8: 4})


@train_once
class TestPGGANAuxiliary(ArchitectureSuite):
    geometries: Sequence[Sequence[int | Sequence[int]]] = ((4, 8), ((2, 3), (6, 9)))
    image_channels: Sequence[int] = (3,)
    batch_sizes: Sequence[int] = (2, 3)
    classes = 3

    def make(self) -> PGGAN:
        return PGGAN(channels=6, conditioning="auxiliary")

    def choose_arguments(self, part: PGGAN) -> dict:
        return {"architecture": part, "dataset": LABELLED}


class TestTutorial(ArchitectureSuite):
    geometries = ((7, 14, 28),)
    image_channels: Sequence[int] = (1,)
    batch_sizes: Sequence[int] = (2, 3)
    bad_arguments = ({"dropout": 1.0}, {"bridge": "none"}, {"generator_channels": 0})

    def make(self) -> Tutorial:
        return Tutorial(generator_channels=6, discriminator_channels=5)


@train_once
class TestTutorialMended(TestTutorial):
    def make(self) -> Tutorial:
        return Tutorial(generator_channels=6, discriminator_channels=5, bridge="image")
