"""Tests of SkipPGGAN: the networks in float64, hard switches that change no function, new layers, and training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.variants import train_once
from torch import Tensor, nn

from pggan_kit.api.train import train
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.schedule import Stage
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import draw_noise, perturb
from pggan_kit.testing.toys import ToyDataset
from pggan_plugins.architectures import SkipPGGAN
from pggan_plugins.resampling import Bilinear, Learned, Nearest, PixelShuffle


class TestSkipPGGAN(ArchitectureSuite):
    geometries = ((7, 14, 28), (5, 15))
    batch_sizes = (1, 6)
    bad_arguments = (
        {"channels": 0},
        {"channels": {4: 8, 8: 0}},
        {"output": "sigmoid"},
        {"stddev_group": 0},
        {"conditioning": "labels"},
        {"label_size": 0},
    )

    def make(self) -> SkipPGGAN:
        return SkipPGGAN(channels=4)


@train_once
class TestConditional(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    image_channels = (3,)
    batch_sizes = (1, 3)
    classes = 3

    def make(self) -> SkipPGGAN:
        return SkipPGGAN(channels=4, output="tanh", conditioning="projection")

    def choose_arguments(self, part: Any) -> dict[str, Any]:
        return {"architecture": part, "dataset": ToyDataset(self.classes)}


def make_pair(architecture: SkipPGGAN, base: Stage, resampling: Any = None) -> tuple[Generator, Discriminator]:
    arguments = (architecture, resampling or Area(), Area(), 0)
    return Generator(*arguments, 5, base), Discriminator(*arguments, base)


def enlarge(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -2).repeat_interleave(2, -1)


def reduce(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def leaky_relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.2 * x)


def linear(x: Tensor, w: dict[str, Tensor], name: str, gain: float = math.sqrt(2)) -> Tensor:
    weight = w[f"{name}.weight"] * gain / math.sqrt(w[f"{name}.weight"][0].numel())
    bias = w[f"{name}.bias"]
    return x @ weight.T + bias if x.dim() == 2 else F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)


def normalise_pixels(x: Tensor) -> Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def make_shaken_networks(bridged: bool) -> tuple[Generator, Discriminator]:
    """Make networks of three stages, so that a layer at the image is neither the base's nor the newest."""
    stages = make_stages((4, 8, 16), 3)
    nets = make_pair(SkipPGGAN(channels={4: 5, 8: 4, 16: 3}), stages[0])
    for net in nets:
        net.grow(stages[1], False)
        net.grow(stages[2], bridged)
        perturb(net)
        net.double()
    return nets


ALPHAS = pytest.mark.parametrize("alpha", [None, 0.3])


@ALPHAS
def test_generator_against_a_transcription(alpha: float | None) -> None:
    """In the fade, alpha multiplies what the new stage adds."""
    generator, _ = make_shaken_networks(alpha is not None)
    w = generator.state_dict()
    z = normalise_pixels(latents := draw_noise(3, 5, dtype=torch.float64))

    # The stem and its image.
    x = (z @ w["stem.stem.dense.weight"].T * math.sqrt(2 / 16 / 5)).view(3, 5, 4, 4) + w["stem.stem.bias"]
    x = normalise_pixels(leaky_relu(linear(normalise_pixels(leaky_relu(x)), w, "stem.stem.conv")))
    image = linear(x, w, "stem.own", 1.0)

    # Each block adds its image to the one before, made larger.
    for block, share in (("blocks.1", 1.0), ("blocks.2", 1.0 if alpha is None else float(torch.tensor(alpha)))):
        x = normalise_pixels(leaky_relu(linear(enlarge(x), w, f"{block}.block.0")))
        x = normalise_pixels(leaky_relu(linear(x, w, f"{block}.block.2")))
        image = enlarge(image) + share * linear(x, w, f"{block}.own", 1.0)

    images = generator(latents, None, None if alpha is None else torch.tensor(alpha))
    torch.testing.assert_close(images, image, rtol=1e-9, atol=1e-9)


@ALPHAS
def test_discriminator_against_a_transcription(alpha: float | None) -> None:
    _, discriminator = make_shaken_networks(alpha is not None)
    w = discriminator.state_dict()
    image = images = draw_noise(4, 3, 16, 16, dtype=torch.float64)

    # Each block reads the image, made smaller, and adds the maps that came with it.
    maps: Tensor | float = 0.0
    for block, share in (("blocks.2", 1.0 if alpha is None else float(torch.tensor(alpha))), ("blocks.1", 1.0)):
        x = leaky_relu(linear(image, w, f"{block}.entry.layer.0")) + maps
        x = leaky_relu(linear(leaky_relu(linear(x, w, f"{block}.block.0")), w, f"{block}.block.2"))
        image = reduce(image)
        maps = share * reduce(x)

    # The head.
    x = leaky_relu(linear(image, w, "head.entry.layer.0")) + maps
    spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    x = leaky_relu(linear(torch.cat([x, spread.expand(4, 1, 4, 4)], 1), w, "head.head.conv"))
    x = leaky_relu(linear(x.permute(0, 2, 3, 1).flatten(1), w, "head.head.dense"))
    wanted = linear(x, w, "head.head.score", 1.0)[:, 0]
    score = discriminator(images, None, None if alpha is None else torch.tensor(alpha)).score
    torch.testing.assert_close(score, wanted, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("resampling", [Nearest(), Learned(), PixelShuffle()], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize("output", ["linear", "tanh"])
def test_a_hard_switch_changes_no_function(resampling: Any, output: str) -> None:
    """Twice, with weights that have moved in between."""
    stages = make_stages((7, 14, 28), 1)
    generator, discriminator = make_pair(SkipPGGAN(channels=4, output=output), stages[0], resampling)
    latents = draw_noise(6, 5, dtype=torch.float64)
    for stage in stages[1:]:
        for net in (generator, discriminator):
            perturb(net.double(), size=0.3)

        # After a hard switch both networks compute what they computed before, at the new size.
        images = draw_noise(6, 1, stage.height, stage.width, seed=1, dtype=torch.float64)
        wanted = enlarge(generator(latents)), discriminator(reduce(images)).score
        for net in (generator, discriminator):
            net.grow(stage, False)
            net.double()
        assert float(wanted[0].std()) > 0.05 and float(wanted[1].std()) > 0.02
        torch.testing.assert_close(generator(latents), wanted[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(discriminator(images).score, wanted[1], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_another_pair_enlarges_the_images_in_its_own_way() -> None:
    stages = make_stages((4, 8), 3)
    generator, discriminator = make_pair(SkipPGGAN(channels=4), stages[0], Bilinear())
    z = draw_noise(3, 5)
    images = draw_noise(3, 3, 8, 8)
    wanted = Bilinear().up(3, 2)(generator(z)), discriminator(Bilinear().down(3, 2)(images)).score
    for net in (generator, discriminator):
        net.grow(stages[1], False)
    torch.testing.assert_close(generator(z), wanted[0])
    torch.testing.assert_close(discriminator(images).score, wanted[1])


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_new_layers_learn(kind: str) -> None:
    """The first step changes those weights of the new stage that start at zero; the second changes the others."""
    # A network that has just grown.
    stages = make_stages((4, 8, 16), 3)
    net: Any = make_pair(SkipPGGAN(channels=4), stages[0])[("generator", "discriminator").index(kind)]
    inputs = draw_noise(4, 5) if kind == "generator" else draw_noise(4, 3, 16, 16)
    net.grow(stages[1], False)
    perturb(net)
    net.grow(stages[2], False)

    # Two steps, and what each changed.
    first = {"blocks.2.own" if kind == "generator" else "blocks.2.block.2"}
    optimizer = torch.optim.Adam(net.parameters(), 1e-2, (0.0, 0.99))
    waiting = None
    for _ in range(2):
        before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
        out = net(inputs)
        loss = (out if kind == "generator" else out.score).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        still = {name.rpartition(".")[0] for name, value in net.named_parameters() if torch.equal(value, before[name])}
        if waiting is None:
            waiting = {name for name in still if name.startswith("blocks.2")}
            assert still == waiting and len(waiting) == 2
            assert first == {n.rpartition(".")[0] for n in before if n.startswith("blocks.2")} - waiting
        else:
            assert still == set()


def test_at_the_start_only_what_is_new_is_zero() -> None:
    stages = make_stages((4, 8), 3)
    for net in make_pair(SkipPGGAN(channels=4), stages[0]):
        assert all(bool(p.any()) for name, p in net.named_parameters() if name.endswith("weight"))
        net.grow(stages[1], False)
        zero = [name for name, p in net.named_parameters() if name.endswith("weight") and not p.any()]
        assert zero == ["blocks.1.own.weight" if net.kind == "generator" else "blocks.1.block.2.weight"]


CONFIG = TINY.replace("PGGAN", "SkipPGGAN")
LINES = ("train.loss = @losses.WGANGP()", "schedule.sizes = (4, 8)", "schedule.stable_images = 16")


@pytest.mark.parametrize("switch", ["Hard", "Linear"])
def test_trains_with_a_gradient_penalty(switch: str, tiny: Callable[..., str], stub: str) -> None:
    run = train(tiny(*LINES, f"train.switch = @switches.{switch}()", base=CONFIG), plugins=[stub])
    nets: list[nn.Module] = [run.state.generator, run.state.ema, run.state.discriminator]
    for net in nets:
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
        assert all(bool(value.any()) for value in net.parameters())


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("channels", "{8: 4}", "no value for height 4"),
        ("output", "'sigmoid'", "must be"),
        ("discriminator_norm", "'spectral'", "discriminator_norm"),
    ],
)
def test_a_wrong_setting_is_an_error(name: str, value: str, complaint: str, rejected: Callable[..., str]) -> None:
    assert complaint in rejected(r"SkipPGGAN", f"architectures.SkipPGGAN.{name} = {value}", base=CONFIG)
