"""The cost of a stage, measured with real iterations."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking import stage_cost
from pggan_kit.benchmarking.plan import plan
from pggan_kit.benchmarking.rig import Rig


def test_a_measured_cost_weighs_lazy_penalties_and_no_slow_moment(
    tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is busy during one iteration of each kind, which then takes a hundred times as long."""
    config = tiny("losses.Hinge.penalties = [@penalties.R1()]", "penalties.R1.every = 4", "schedule.sizes = (4, 8)")
    prepared = prepare(config, plugins=[stub])
    rig = Rig(prepared, prepared.schedule(), 1, fading=False, compiles=False)
    rig.step()
    monkeypatch.setattr(stage_cost, "measure_loop_overhead", lambda rig: 0.5)
    delays = itertools.cycle([1, 100, 1])
    monkeypatch.setattr(
        stage_cost, "time_calls", lambda step, device: next(delays) * (9.0 if step.args == (0,) else 1.0)
    )
    assert stage_cost.measure_seconds_an_image(rig) == pytest.approx((0.25 * 9 + 0.75 * 1 + 0.5) / 4)


@pytest.mark.usefixtures("no_memory_count", "no_fake_tensors")
def test_the_fade_is_measured_apart(tiny: Callable[..., str], stub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_cost, "measure_seconds_an_image", lambda rig: 0.5 if rig.alphas else 0.125)
    for switch, fading in (("Linear", 2.0), ("Hard", 8.0)):
        rows = plan(tiny(f"train.switch = @switches.{switch}()"), plugins=[stub])
        assert [row["images_per_second"] for row in rows] == [8.0] * 3
        assert [row["fade_images_per_second"] for row in rows[1:]] == [fading] * 2
        assert all(row["outside_share"] > 0 and row["checkpoint_mib"] > 0 for row in rows)
