"""Test which work is due at a tick, and where a run plans its ticks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pggan_kit.errors import SettingError
from pggan_kit.schedule import ScheduleSettings
from pggan_kit.ticks import PARTS_OF_RUN, Interval, Tick, check_interval, list_planned_ticks, resolve_interval

SCHEDULE = ScheduleSettings((4, 8), 400, 600, 4, 20_000).resolve(100, 1, 0)
SMALL, LARGE = SCHEDULE.stages

DUE: list[tuple[Interval, Any, int, int, bool]] = [
    # interval, stage, the tick before, the tick, whether it is due
    (100, SMALL, 90, 99, False),
    (100, SMALL, 90, 100, True),
    (100, SMALL, 90, 250, True),
    (100, SMALL, 100, 199, False),
    (None, SMALL, 190, 199, False),
    (None, SMALL, 190, 201, True),
    ("phase", SMALL, 0, 19_000, False),
    ({4: 50, 8: "phase"}, SMALL, 40, 60, True),
    ({4: 50, 8: "phase"}, LARGE, 40, 60, False),
    ({4: "phase", 8: 50}, LARGE, 40, 60, True),
]


@pytest.mark.parametrize(("interval", "stage", "before", "images", "is_due"), DUE)
def test_work_is_due_where_the_clock_passes_its_interval(
    interval: Interval, stage: Any, before: int, images: int, is_due: bool
) -> None:
    tick = Tick(images, before, SCHEDULE.total, stage)
    assert tick.is_due(interval) == is_due
    assert Tick(images, before, SCHEDULE.total, stage, ends_phase=True).is_due(interval), "whatever the interval"


def test_an_interval_that_is_none_is_refused() -> None:
    sizes = [(4, 4), (8, 8)]
    for wrong in (0, -5, 2.5, True, {4: 0}):
        with pytest.raises(SettingError, match=r"^every must be a whole number of at least 1, or 'phase', or None"):
            check_interval("every", wrong, sizes)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"^every must be a number of images, or 'phase', not 'stage'"):
        check_interval("every", {4: "stage"}, sizes)
    with pytest.raises(SettingError, match=r"^every has no value for height 4"):
        check_interval("every", {8: 5}, sizes)
    for right in (None, 1, "phase", {4: 5, 8: "phase"}):
        check_interval("every", right, sizes)


@pytest.mark.parametrize("total", [2_000, 200_000, 20_000_000])
def test_what_has_no_interval_is_done_about_a_hundred_times_however_long_the_run_is(total: int) -> None:
    """So the time and the disk that it takes do not grow with the run."""
    schedule = ScheduleSettings((4, 8), total // 10, total // 4, 4, total).resolve(100, 1, 0)
    ticks = list(list_planned_ticks(schedule, total // 1_000))
    assert resolve_interval(None, schedule.stages[0], total) == total // PARTS_OF_RUN
    assert len(ticks) >= 1_000
    assert PARTS_OF_RUN <= sum(tick.is_due(None) for tick in ticks) <= PARTS_OF_RUN + 4


def test_a_run_has_its_ticks_where_they_are_planned(train: Callable[..., Any]) -> None:
    run = train("schedule.fade_images = 40", "schedule.stable_images = {4: 136, 8: 24}", "train.tick = 64")
    planned = list(list_planned_ticks(run.schedule, 64))
    assert [tick.images for tick in planned] == run.stats.column("images")
    assert [tick.stage.size for tick in planned] == [f"{size}x{size}" for size in run.stats.column("Progress/size")]
    assert [tick.images for tick in planned if tick.is_early] == [16, 32]
    assert [tick.images for tick in planned if tick.ends_phase] == [136, 176, 200, 240, 264]
