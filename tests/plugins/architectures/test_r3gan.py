"""Tests of R3GAN: its networks and initial weights in float64, hard switches, the conformance suite, and training."""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY
from helpers.networks import make_networks
from helpers.paths import ROOT
from helpers.variants import train_once
from torch import Tensor, nn

from pggan_kit import SettingError
from pggan_kit.api.train import train
from pggan_kit.growth.networks import Discriminator, Generator
from pggan_kit.layers.resampling import Area
from pggan_kit.testing import ArchitectureSuite, make_stages
from pggan_kit.testing.support import copy_weights, draw_noise, measure_difference
from pggan_plugins.architectures import R3GAN
from pggan_plugins.resampling import Blur

Weights = dict[str, Tensor]


class TestPublished(ArchitectureSuite):
    geometries = ((7, 14, 28), (5, 15, 45))
    batch_sizes = (1, 6)
    bad_arguments = (
        {"channels": 0},
        {"blocks": 0},
        {"blocks": 1.5},
        {"expansion": 0},
        {"group_size": 0},
        {"group_size": 16, "channels": {4: 8, 8: 12}},
        {"depth": 0},
        {"conditioning": "labels"},
        {"label_size": 0},
    )

    def make(self) -> R3GAN:
        return R3GAN(channels={1: 6, 20: 4}, group_size=4)


@train_once
class TestOthers(ArchitectureSuite):
    geometries = (((4, 6), (8, 12)),)
    batch_sizes = (1, 3)

    def make(self) -> R3GAN:
        return R3GAN(channels=4, blocks={4: 1, 8: 2}, expansion=1, group_size=2, depth=3, inherit_images=False)


def run_block(x: Tensor, w: Weights, name: str, groups: int) -> Tensor:
    """Return `x + 1x1(act(3x3 in groups(act(1x1(x)))))`; biases before the activations, and none behind the last."""
    branch = f"{name}.branch"
    y = F.leaky_relu(F.conv2d(x, w[f"{branch}.0.weight"]) + w[f"{branch}.0.bias"].view(-1, 1, 1), 0.2)
    y = F.conv2d(y, w[f"{branch}.2.weight"], padding=1, groups=groups) + w[f"{branch}.2.bias"].view(-1, 1, 1)
    return x + F.conv2d(F.leaky_relu(y, 0.2), w[f"{branch}.4.weight"])


def make_filter(channels: int) -> Tensor:
    """Return [1, 2, 1] convolved with [1, 1], in both directions and with a sum of 1, for each map."""
    taps = torch.tensor([1, 3, 3, 1], dtype=torch.float64)
    return (torch.outer(taps, taps) / 64).expand(channels, 1, 4, 4)


def enlarge(x: Tensor) -> Tensor:
    """Put zeros between the pixels, and filter with a gain of 4."""
    return F.conv_transpose2d(x, 4 * make_filter(x.shape[1]), stride=2, padding=1, groups=x.shape[1])


def reduce(x: Tensor) -> Tensor:
    """Filter, and keep each second pixel."""
    return F.conv2d(x, make_filter(x.shape[1]), stride=2, padding=1, groups=x.shape[1])


CHANNELS = {4: 6, 16: 4}
SIZES = (4, 8, 16)
"""The number of maps stays from 4x4 to 8x8, without a 1x1 between them, and changes at 16x16."""


def test_generator_against_a_transcription() -> None:
    """Basis; two blocks a stage; 1x1 where maps change, and then up; 1x1 to images."""
    generator, _ = make_networks(R3GAN(CHANNELS, group_size=4), SIZES, resampling=Blur())
    w = generator.state_dict()
    z = draw_noise(3, 5, dtype=torch.float64)

    x = torch.einsum("nz,cz,chw->nchw", z, w["stem.dense.weight"], w["stem.basis"])
    for index in range(2):
        x = run_block(x, w, f"stem.residuals.{index}", groups=3)
    x = enlarge(x)
    for index in range(2):
        x = run_block(x, w, f"blocks.1.residuals.{index}", groups=3)
    x = enlarge(F.conv2d(x, w["blocks.2.project.weight"]))
    for index in range(2):
        x = run_block(x, w, f"blocks.2.residuals.{index}", groups=2)
    image = F.conv2d(x, w["to_image.weight"])

    torch.testing.assert_close(generator(z), image, rtol=1e-10, atol=1e-10)
    assert "blocks.1.project.weight" not in w


@pytest.mark.parametrize("conditioning", ["none", "projection", "auxiliary"])
def test_discriminator_against_a_transcription(conditioning: str) -> None:
    """1x1 from images; two blocks a stage, down, and then 1x1 where maps change; a weighted sum over pixels; linear."""
    architecture = R3GAN(CHANNELS, group_size=4, conditioning=conditioning)
    _, discriminator = make_networks(architecture, SIZES, classes=3, resampling=Blur())
    w = discriminator.state_dict()
    images = draw_noise(3, 3, 16, 16, dtype=torch.float64)
    labels = torch.tensor([2, 0, 2])

    # From the largest size down.
    x = F.conv2d(images, w["from_image.weight"])
    for index in range(2):
        x = run_block(x, w, f"blocks.2.residuals.{index}", groups=2)
    x = F.conv2d(reduce(x), w["blocks.2.project.weight"])
    for index in range(2):
        x = run_block(x, w, f"blocks.1.residuals.{index}", groups=3)
    x = reduce(x)
    for index in range(2):
        x = run_block(x, w, f"head.residuals.{index}", groups=3)

    # The score of the features, by the label where it counts.
    features = torch.einsum("nchw,chw->nc", x, w["head.basis.weight"])
    if conditioning == "projection":
        embedded = w["head.embedding.weight"][labels]
        score = torch.einsum("nc,dc,nd->n", features, w["head.dense.weight"], embedded)
    else:
        score = features @ w["head.score.weight"][0]

    # The network itself.
    scores = discriminator(images, labels)
    torch.testing.assert_close(scores.score, score, rtol=1e-10, atol=1e-10)
    if conditioning == "auxiliary":
        logits = features @ w["head.labels.by_class.weight"].T + w["head.labels.by_class.bias"]
        torch.testing.assert_close(scores.class_logits, logits, rtol=1e-10, atol=1e-10)


def list_blocks(net: nn.Module) -> list[Weights]:
    """Return the weights of each residual block, from the oldest to the newest."""
    blocks: dict[str, Weights] = {}
    for name, value in copy_weights(net).items():
        block, found, layer = name.partition(".branch.")
        if found:
            blocks.setdefault(block, {})[layer] = value
    return list(blocks.values())


@pytest.mark.parametrize(("depth", "expected"), [(None, [2, 2, 5]), (8, [8, 8, 8])])
def test_weights_at_the_start(depth: int | None, expected: list[int]) -> None:
    """N(0, gain^2 / fan-in), where the gain is sqrt(2 / 1.04) L^(-1/4) in a block and 1 elsewhere; zeros at its end."""
    classes = 4
    options = {"blocks": {4: 2, 8: 3}, "depth": depth, "inherit_images": False, "conditioning": "projection"}
    architecture = R3GAN({4: 96, 8: 64}, **options)  # type: ignore[arg-type]
    stages = make_stages((4, 8), 3, classes)
    pair = (architecture, Blur(), Area(), 0)
    generator, discriminator = Generator(*pair, 40, stages[0]), Discriminator(*pair, stages[0])
    for net in (generator, discriminator):
        net.grow(stages[1], False)

        # The head, and with it D's oldest blocks, comes after the newer ones in D's state.
        blocks = sorted(list_blocks(net), key=lambda block: -len(block["4.weight"]))
        for block, count in zip(blocks, [*expected[:2], *[expected[2]] * 3], strict=True):
            gain = math.sqrt(2 / 1.04) / count**0.25
            inside, width = block["0.weight"].shape[:2]
            assert inside == 2 * width
            assert float(block["0.weight"].std()) == pytest.approx(gain / math.sqrt(width), rel=0.03)
            assert float(block["2.weight"].std()) == pytest.approx(gain / math.sqrt(9 * 16), rel=0.03)
            assert not any(bool(block[name].any()) for name in ("0.bias", "2.bias", "4.weight"))
            assert "4.bias" not in block

    spreads = {
        "stem.basis": 1.0,
        "stem.dense.weight": 1 / math.sqrt(40 + 64),
        "stem.latents.embedding.weight": 1 / math.sqrt(classes),
        "blocks.1.project.weight": 1 / math.sqrt(96),
        "to_image.weight": 1 / math.sqrt(64),
    }
    for name, spread in spreads.items():
        assert float(generator.state_dict()[name].std()) == pytest.approx(spread, rel=0.12), name
    spreads = {
        "head.basis.weight": 1 / 4,
        "head.dense.weight": 1 / math.sqrt(96),
        "head.embedding.weight": 1 / math.sqrt(classes * 96),
        "blocks.1.project.weight": 1 / math.sqrt(64),
        "from_image.weight": 1 / math.sqrt(3),
    }
    for name, spread in spreads.items():
        assert float(discriminator.state_dict()[name].std()) == pytest.approx(spread, rel=0.12), name


def test_published_sizes() -> None:
    """FFHQ-256: 23.058 and 23.010 million parameters (table 1, the last row), with 16 maps in a group at all sizes."""
    stages = make_stages((4, 8, 16, 32, 64, 128, 256), 3)
    with torch.device("meta"):
        pair = (R3GAN(inherit_images=False), Blur(), Area(), 0)
        nets = Generator(*pair, 64, stages[0]), Discriminator(*pair, stages[0])
        for net in nets:
            for stage in stages[1:]:
                net.grow(stage, False)
    counts = [sum(param.numel() for param in net.parameters()) for net in nets]
    assert [f"{count / 1e6:.3f}" for count in counts] == ["23.058", "23.010"]


@pytest.mark.parametrize("channels", [6, {4: 8, 8: 6}, {4: 6, 8: 8}], ids=["equal", "narrower", "wider"])
@torch.no_grad()
def test_hard_switches_change_neither_network(channels: Any) -> None:
    """G gives the image of before, enlarged, and D the score of the reduced image: whatever the maps' number does."""
    stages = make_stages((4, 8), 3)
    images = draw_noise(3, 3, 8, 8, dtype=torch.float64)
    z = draw_noise(3, 5, dtype=torch.float64)
    changes = {}
    for inherits in (True, False):
        architecture = R3GAN(channels, group_size=4, inherit_images=inherits)
        generator, discriminator = make_networks(architecture, (4,), resampling=Blur())
        image, score = enlarge(generator(z)), discriminator(reduce(images)).score
        for net in (generator, discriminator):
            net.grow(stages[1], False)
            net.double()
        changes[inherits] = [
            measure_difference(generator(z), image),
            measure_difference(discriminator(images).score, score),
        ]
    # New weights are drawn and stored in float32.
    assert max(changes[True]) < 1e-6
    assert min(changes[False]) > 0.1


@pytest.mark.parametrize("method", ["generator_block", "discriminator_block"])
def test_images_with_more_channels_than_maps_are_not_inherited(method: str) -> None:
    """The product of the new layer to images and the 1x1 has at most as many independent rows as there are maps."""
    first, second = make_stages((4, 8), 5)
    widths = {4: 8, 8: 4}
    architecture = R3GAN(widths, group_size=4)
    arguments = (first, second) if method == "generator_block" else (second, first)
    complaint = r"^inherit_images is not possible at 8x8, whose 4 maps cannot hold the 5 channels of an image: give"
    with pytest.raises(SettingError, match=complaint):
        getattr(architecture, method)(*arguments, Blur())
    for able in (R3GAN(widths, group_size=4, inherit_images=False), R3GAN(4, group_size=4), R3GAN(8, group_size=4)):
        getattr(able, method)(*arguments, Blur())


def test_groups_that_do_not_divide_the_default_widths() -> None:
    with pytest.raises(SettingError, match=r"group_size must divide the 1536 maps inside a block .* and is 5"):
        R3GAN(group_size=5).generator_stem(8, make_stages((4,))[0])


LINES = (
    "train.loss = @losses.Relativistic()",
    "losses.Relativistic.penalties = [@penalties.R1(), @penalties.R2()]",
    "train.resampling = @resampling.Blur()",
    "architectures.R3GAN.group_size = 4",
    "schedule.sizes = (4, 8)",
    "schedule.fade_images = 8",
    "schedule.stable_images = 8",
)


SCRIPT = ROOT / "scripts" / "measure_switch.py"


@pytest.mark.parametrize("inherits", [True, False])
def test_trains_with_its_loss(
    inherits: bool, tiny: Callable[..., str], stub: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a fade, and by a hard switch; `scripts/measure_switch.py` sees what the latter would change."""
    lines = [
        *LINES,
        f"train.switch = @switches.{'Hard' if inherits else 'Linear'}()",
        "architectures.R3GAN.channels = {4: 8, 8: 4}",
        f"architectures.R3GAN.inherit_images = {inherits}",
    ]
    probe = runpy.run_path(str(SCRIPT))["SwitchProbe"]()
    run = train(tiny(*lines, base=TINY.replace("PGGAN", "R3GAN")), plugins=[stub, probe])
    assert run.state.steps == 6
    for net in (run.state.generator, run.state.ema, run.state.discriminator):
        assert all(bool(value.isfinite().all()) for value in net.state_dict().values())
        # The last convolutions, which began at 0, have learned.
        assert all(bool(block["4.weight"].any()) for block in list_blocks(net))

    (measured,) = re.findall(r"^4x4 -> 8x8 at 8 images: G (\S+), D \(a\) (\S+), D \(b\)", capsys.readouterr().out, re.M)
    if inherits:
        assert max(map(float, measured)) < 1e-4
    else:
        assert min(map(float, measured)) > 0.1
