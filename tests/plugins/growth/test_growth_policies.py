"""The growth policies: their factors, and the conformance suite."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from helpers.variants import train_once

from pggan_kit.components import Piece
from pggan_kit.errors import ConfigError
from pggan_kit.growth.learning import name_pieces
from pggan_kit.schedule import Position, ScheduleSettings
from pggan_kit.testing import GrowthPolicySuite
from pggan_plugins.growth import Everything, FreezeD, FreezeOld, SlowOld, WarmUpNew

SCHEDULE = ScheduleSettings((4, 8, 16, 32), fade_images=40, stable_images=60, batch_size=4).resolve(16, 1, 0)
STARTS = SCHEDULE.planned_starts()


def ask(policy: Everything, stage: int, spent: int) -> dict[str, float]:
    """Return the factors of all pieces after some images of a stage, as `G block 8`."""
    starts = STARTS[: stage + 1]
    position: Position = SCHEDULE.at(starts[-1] + spent, starts)
    pieces = [*name_pieces(SCHEDULE.stages[stage])]
    pieces += [Piece(net, "bridge", SCHEDULE.stages[stage]) for net in ("generator", "discriminator")]
    return {
        f"{piece.net[0].upper()} {piece.name} {piece.birth.height}": policy.factor(piece, position) for piece in pieces
    }


def list_below_1(factors: dict[str, float]) -> dict[str, float]:
    return {name: factor for name, factor in factors.items() if factor != 1}


@pytest.mark.parametrize("policy", [FreezeOld, SlowOld, WarmUpNew])
def test_an_encoder_needs_one_in_the_run(policy: Any) -> None:
    run: Any = SimpleNamespace(state=SimpleNamespace(encoder=None))
    policy(nets=["generator", "discriminator"]).before_run(run)
    with pytest.raises(ConfigError, match=rf"growth\.{policy.__name__}\.nets names the encoder, and there is none"):
        policy(nets=["generator", "encoder"]).before_run(run)
    run.state.encoder = object()
    policy(nets=["generator", "encoder"]).before_run(run)


def test_everything_learns() -> None:
    assert all(not list_below_1(ask(Everything(), stage, 10)) for stage in range(4))


def test_old_blocks_of_the_generator_are_frozen_for_good() -> None:
    """As in StyleGAN-XL, whose discriminator goes on learning as a whole."""
    assert list_below_1(ask(FreezeOld(), 0, 20)) == {}
    assert list_below_1(ask(FreezeOld(), 2, 0)) == {"G stem 4": 0, "G block 8": 0}
    assert list_below_1(ask(FreezeOld(), 2, 99)) == {"G stem 4": 0, "G block 8": 0}


def test_old_blocks_are_frozen_for_some_images() -> None:
    policy = FreezeOld(images={4: 8, 16: 12}, nets=("discriminator",))
    assert list_below_1(ask(policy, 2, 11)) == {"D head 4": 0, "D block 8": 0}
    assert list_below_1(ask(policy, 2, 12)) == {}
    assert list_below_1(ask(policy, 1, 8)) == {}


def test_freeze_d_leaves_the_layers_near_the_score() -> None:
    """With 3, as in the released code, the head and the blocks of the next two sizes."""
    near_image = {"D from_image 32": 0, "D bridge 32": 0}
    assert list_below_1(ask(FreezeD(), 3, 0)) == {"D block 32": 0, **near_image}
    assert list_below_1(ask(FreezeD(1), 3, 0)) == {"D block 8": 0, "D block 16": 0, "D block 32": 0, **near_image}
    assert list_below_1(ask(FreezeD(1, images=8), 3, 7)) == {}
    assert "D head 4" not in list_below_1(ask(FreezeD(1, images=8), 0, 8)) != {}


def test_new_pieces_warm_up() -> None:
    """After k steps of 4 images the factor has been 4k / 40."""
    policy = WarmUpNew(images=40)
    new = ("G block 16", "G to_image 16", "G bridge 16", "D block 16", "D from_image 16", "D bridge 16")
    for step in range(10):
        wanted = dict.fromkeys(new, pytest.approx((step + 1) / 10)) if step < 9 else {}
        assert list_below_1(ask(policy, 2, 4 * step)) == wanted
    assert list_below_1(ask(policy, 0, 0)) == {}, "the base stage has nothing old beside it"


def ask_of_apart(policy: Everything, heights: Any, stage: int) -> dict[str, float]:
    """Return the factors below 1 of D's pieces as a stage begins, where D does not grow together with G."""
    settings = ScheduleSettings((4, 8, 16), 40, 60, 4, discriminator_height=heights)
    schedule = settings.resolve(16, 1, 0)
    starts = schedule.planned_starts()[: stage + 1]
    pieces = [piece for piece in name_pieces(schedule.stages[stage]) if piece.net == "discriminator"]
    position = schedule.at(starts[-1], starts)
    return list_below_1({f"{piece.name} {piece.birth.height}": policy.factor(piece, position) for piece in pieces})


def test_a_discriminator_of_full_size_has_no_new_pieces() -> None:
    """It has all of them from the first image on, so that nothing warms up, and nothing is old beside a new one."""
    for policy in (WarmUpNew(images=40), SlowOld(0.25), FreezeOld(nets=["discriminator"])):
        assert [ask_of_apart(policy, 16, stage) for stage in range(3)] == [{}, {}, {}]


def test_a_discriminator_ahead_of_the_generator_has_new_pieces_as_it_grows() -> None:
    ahead = {4: 8, 8: 16}
    assert ask_of_apart(WarmUpNew(images=40), ahead, 0) == {}
    assert ask_of_apart(WarmUpNew(images=40), ahead, 1) == {"block 16": 0.1, "from_image 16": 0.1}
    assert ask_of_apart(WarmUpNew(images=40), ahead, 2) == {}
    assert ask_of_apart(SlowOld(0.25), ahead, 1) == {"head 4": 0.25, "block 8": 0.25}
    freezing = FreezeOld(nets=["discriminator"])
    assert [ask_of_apart(freezing, ahead, stage) for stage in range(3)] == [{}, {"head 4": 0, "block 8": 0}, {}]


class Square:
    """A curve."""

    def at(self, position: Position) -> float:
        return ((position.images - position.stage_start) / 40) ** 2


def test_a_factor_may_be_a_curve() -> None:
    assert ask(WarmUpNew(images=40, factor=Square()), 2, 20)["G block 16"] == 0.25
    assert ask(WarmUpNew(images=40, factor={4: 0.5, 16: Square()}), 1, 20)["G block 8"] == 0.5
    assert ask(SlowOld(factor=Square()), 2, 20)["G block 8"] == 0.25


def test_old_pieces_are_slowed_down() -> None:
    assert list_below_1(ask(SlowOld(0.25, nets=("generator",)), 2, 50)) == {"G stem 4": 0.25, "G block 8": 0.25}
    assert set(list_below_1(ask(SlowOld(), 1, 50)).items()) == {("G stem 4", 0.1), ("D head 4", 0.1)}


MOMENTS: dict[str, Any] = {"moments": "forget"}


@train_once
class TestEverything(GrowthPolicySuite):
    bad_arguments = (MOMENTS,)

    def make(self) -> Everything:
        return Everything("forget_touched")


@train_once
class TestFreezeOld(GrowthPolicySuite):
    bad_arguments = ({"images": -1}, {"nets": ("critic",)}, {"nets": "generator"}, {"nets": ()}, MOMENTS)

    def make(self) -> FreezeOld:
        """Return a policy under which both networks' old pieces learn again in the middle of the fade."""
        return FreezeOld(images=9, nets=("generator", "discriminator"))


class TestFreezeD(GrowthPolicySuite):
    bad_arguments = ({"learning": 0}, {"images": -1}, MOMENTS)

    def make(self) -> FreezeD:
        return FreezeD(learning=1, images=4, moments="forget_at_phases")


class TestWarmUpNew(GrowthPolicySuite):
    bad_arguments = ({"images": -1}, {"factor": -0.5}, {"factor": float("inf")}, {"nets": ("critic",)}, MOMENTS)

    def make(self) -> WarmUpNew:
        return WarmUpNew(images=14)


@train_once
class TestSlowOld(GrowthPolicySuite):
    bad_arguments = ({"factor": -0.1}, {"factor": {4: 0.1, 8: -1.0}}, {"nets": ("critic",)}, MOMENTS)

    def make(self) -> SlowOld:
        return SlowOld(factor=0.5)
