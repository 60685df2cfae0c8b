"""Test parameters that an architecture made with `requires_grad` False: they never learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import STUB, TINY
from helpers.killing import StopAt, assert_same_run
from torch import Tensor, nn

from pggan_kit import Component, hookimpl
from pggan_kit.api.train import resume
from pggan_kit.errors import Interrupted
from pggan_kit.testing import ArchitectureSuite
from pggan_plugins.architectures import PGGAN
from pggan_plugins.updates import Alternating


class Scaled(nn.Module):
    """A layer behind which each map is multiplied by a constant that is a parameter."""

    def __init__(self, layer: nn.Module, maps: int) -> None:
        super().__init__()
        self.layer = layer
        self.constant = nn.Parameter(1 + torch.rand(maps, 1, 1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C, h, w)."""
        return self.layer(x) * self.constant


class ScaledPGGAN(PGGAN):
    """The paper's networks with constants in a piece that stays, and in one that each stage replaces."""

    def discriminator_block(self, stage: Any, previous: Any, resampling: Any) -> nn.Module:
        """Return a block, scaled."""
        return Scaled(super().discriminator_block(stage, previous, resampling), self.width(previous))

    def to_image(self, stage: Any) -> nn.Module:
        """Return a layer to images, scaled."""
        return Scaled(super().to_image(stage), stage.image_channels)


class LearnersAlone(Alternating):
    """Give optimizers only the parameters that learn, as much code for trained feature networks does."""

    def optimizers(self, experiment: Any, stage: Any, generator: Any, discriminator: Any) -> Any:
        """Build `generator` and `discriminator`."""
        chosen = {"generator": experiment.generator_optimizer, "discriminator": experiment.discriminator_optimizer}
        built = {}
        for name, net in (("generator", generator), ("discriminator", discriminator)):
            built[name] = chosen[name].build([param for param in net.parameters() if param.requires_grad], stage)
        return built


PLUGINS = (
    Component("architectures", "ScaledPGGAN", ScaledPGGAN),
    Component("updates", "LearnersAlone", LearnersAlone),
)
BASE = TINY.replace("architectures.PGGAN", "architectures.ScaledPGGAN")
UPDATES = {
    "all": [],
    "those that learn": ["train.update = @updates.LearnersAlone()"],
    "one optimizer": [
        "train.update = @updates.JointBatch()",
        "updates.JointBatch.optimizer = @optimizers.SharedAdam()",
        "train.generator_optimizer = None",
        "train.discriminator_optimizer = None",
    ],
}


class Watch:
    """Notes constants as a stage begins, and checks them after each step."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}
        self.steps = 0

    @hookimpl
    def after_step(self, state: Any) -> None:
        self.steps += 1
        for kind, net in state.networks.items():
            learning = {id(param) for param in net.learning_weights()}
            for name, param in net.named_parameters():
                if name.endswith("constant"):
                    assert id(param) not in learning and not param.requires_grad
                    assert param.grad is None
                    # The place of the newest layer to images has another constant at each size.
                    before = self.seen.setdefault(f"{state.stage.index} {kind} {name}", param.clone())
                    assert torch.equal(param, before)
        for name, param in state.generator.named_parameters():
            if name.endswith("constant"):
                assert torch.equal(param, state.ema.state_dict()[name])


@pytest.mark.parametrize("update", UPDATES)
def test_constants_stay_through_growth_and_fades(update: str, train: Callable[..., Any]) -> None:
    watch = Watch()
    train(*UPDATES[update], base=BASE, plugins=(*PLUGINS, watch))
    assert watch.steps == 10
    assert len(watch.seen) >= 6


@pytest.mark.parametrize("update", ["all", "those that learn"])
def test_a_run_with_constants_is_resumed_bit_for_bit(update: str, train: Callable[..., Any]) -> None:
    lines = UPDATES[update]
    with pytest.raises(Interrupted):
        train(*lines, base=BASE, run_dir="run", plugins=(*PLUGINS, StopAt(28)))
    resume("run", plugins=[STUB, *PLUGINS])
    train(*lines, base=BASE, run_dir="whole", plugins=PLUGINS)
    assert_same_run(Path("run"), Path("whole"))


def test_constants_stay_where_pieces_are_frozen(train: Callable[..., Any]) -> None:
    lines = ["train.growth = @growth.FreezeOld()", *UPDATES["those that learn"]]
    frozen: list[bool] = []

    class Look:
        @hookimpl
        def after_step(self, state: Any) -> None:
            for net in state.networks.values():
                for built in net.pieces():
                    if built.piece in net.frozen:
                        frozen.append(True)
                        assert all(not param.requires_grad and param.grad is None for param in built.weights)

    train(*lines, base=BASE, plugins=(*PLUGINS, Watch(), Look()))
    assert frozen


class TestScaledPGGAN(ArchitectureSuite):
    """The suite of authors accepts constants."""

    def make(self) -> Any:
        return ScaledPGGAN(channels=4)
