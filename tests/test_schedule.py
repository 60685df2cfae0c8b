"""The schedule against a simulation that counts images one at a time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pggan_kit.errors import LARGEST_WHOLE_NUMBER, SettingError
from pggan_kit.schedule import (
    FADE,
    STABLE,
    Position,
    Schedule,
    ScheduleSettings,
    at_height,
    check_sizes,
    convert_to_images,
    describe_late_stages,
    value_at,
)

budgets = st.integers(0, 7)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    count = draw(st.integers(1, 4))
    sizes = [4 * 2**i for i in range(count)]
    fade = {size: draw(budgets) for size in sizes}
    stable = {size: draw(budgets) for size in sizes}
    stable[4] += 1
    total = draw(st.none() | st.integers(1, 40))
    return ScheduleSettings(sizes, fade, stable, 1, total).resolve(10, 1, 0)


def simulated(schedule: Schedule) -> list[tuple[int, str, float]]:
    """(stage, phase, progress) at each image of a run in which each stage spends its budget, told by counting."""
    told: list[tuple[int, str, float]] = []
    for stage in schedule.stages:
        last = stage is schedule.stages[-1]
        fade = 0 if stage.index == 0 else stage.fade_images
        for spent in range(fade):
            if len(told) < schedule.total:
                told.append((stage.index, FADE, spent / fade))
        left = schedule.total - len(told)
        stable = left if last else min(stage.stable_images, left)
        told.extend((stage.index, STABLE, spent / stable) for spent in range(stable))
    return told


@settings(max_examples=80, deadline=None)
@given(schedules())
def test_at_against_counting(schedule: Schedule) -> None:
    told = simulated(schedule)
    assert len(told) == schedule.total
    starts = [0]
    for images, (index, phase, progress) in enumerate(told):
        while len(starts) - 1 < index:
            assert images == schedule.end(starts)
            starts.append(images)
        position = schedule.at(images, starts)
        assert (position.stage.index, position.phase) == (index, phase)
        assert position.progress == pytest.approx(progress)
    assert starts == schedule.planned_starts()[: len(starts)]
    assert schedule.end(starts) == schedule.total or len(starts) < len(schedule.stages)


def test_stages_of_a_schedule() -> None:
    schedule = ScheduleSettings(
        sizes=(7, (14, 14), 28),
        fade_images={7: 100, 14: "3 steps", 28: "0.5 epochs"},
        stable_images={7: "2 epochs", 28: 1_000},
        batch_size={7: 64, 28: 32},
    ).resolve(dataset_length=50, image_channels=3, classes=10)
    first, second, third = schedule.stages
    assert [stage.size for stage in schedule.stages] == ["7x7", "14x14", "28x28"]
    assert [stage.fade_images for stage in schedule.stages] == [0, 3 * 64, 25]
    assert [stage.stable_images for stage in schedule.stages] == [100, 100, 1000]
    assert [stage.batch_size for stage in schedule.stages] == [64, 64, 32]
    assert [stage.factor for stage in schedule.stages] == [1, 2, 2]
    assert (first.previous, second.previous, third.previous) == (None, first, second)
    assert {(stage.image_channels, stage.classes) for stage in schedule.stages} == {(3, 10)}
    assert schedule.total == 100 + 192 + 100 + 25 + 1000
    assert schedule.planned_starts() == [0, 100, 392]


@pytest.mark.parametrize(
    ("total", "wanted"),
    [(None, 60), (200, 200), (35, 35), ("10 steps", 3 * 8 + 7 * 4), ("2 epochs", 32), ("1_000 images", 1000)],
)
def test_total(total: int | str | None, wanted: int) -> None:
    settings_ = ScheduleSettings((4, 8), 20, 20, {4: 8, 8: 4}, total)
    schedule = settings_.resolve(16, 1, 0)
    assert schedule.total == wanted
    assert schedule.end([0, 20]) == wanted
    assert schedule.end([0]) == 20
    assert [stage.size for stage in schedule.list_planned_stages()] == ["4x4", "8x8"]


def test_stages_without_images_are_not_planned() -> None:
    budgets = {4: 0, 8: 20, 16: 20}
    every = ScheduleSettings((4, 8, 16), 0, budgets, 4).resolve(16, 1, 0)
    assert [stage.size for stage in every.list_planned_stages()] == ["8x8", "16x16"]
    cut = ScheduleSettings((4, 8, 16), 0, budgets, 4, total_images=20).resolve(16, 1, 0)
    assert [stage.size for stage in cut.list_planned_stages()] == ["8x8"]


def test_stages_that_begin_at_or_past_the_total_are_warned_of() -> None:
    """Their starts are 0, 10, 30 and 50, as each but the first spends 10 + 10 images."""

    def describe(total: int | None, first: int = 0) -> list[str]:
        schedule = ScheduleSettings((4, 8, 16, 32), 10, 10, 1, total_images=total).resolve(1, 1, 0)
        return describe_late_stages(schedule, first)

    assert describe(None) == describe(51) == describe(30, first=3) == []
    (line,) = describe(30)
    assert re.match(r"the run ends at 30 images, .*: 16x16 \(at 30\), 32x32 \(at 50\)\. To train them, raise", line)
    (line,) = describe(50)
    assert "8x8" not in line and "16x16" not in line and "32x32 (at 50)" in line
    # A run that is resumed at 16x16 has begun it.
    (line,) = describe(30, first=2)
    assert "16x16" not in line and "32x32" in line


def test_stages_that_began_late_or_early_move_what_follows() -> None:
    schedule = ScheduleSettings((4, 8, 16), 10, 10, 1).resolve(1, 1, 0)
    assert schedule.total == 50
    early, late = schedule.at(8, [0, 4]), schedule.at(18, [0, 17])
    assert (early.phase, early.progress) == (FADE, 0.4)
    assert (late.phase, late.progress) == (FADE, 0.1)
    assert schedule.end([0, 4]) == 24
    last = schedule.at(30, [0, 4, 10])
    assert (last.phase, last.progress) == (STABLE, 10 / 30)
    assert schedule.at(99, [0, 4, 10]).progress == 1.0


class Spent:
    """A curve: the images since the start of the stage."""

    def at(self, position: Position) -> float:
        return float(position.images - position.stage_start)


def test_value_at_a_place_takes_the_key_first_and_then_the_curve() -> None:
    schedule = ScheduleSettings((4, 8, 16), 10, 20, 1).resolve(100, 1, 0)
    setting = {4: 0.5, 8: Spent(), 16: 2}
    assert value_at(setting, schedule.at(7, [0])) == 0.5
    assert value_at(setting, schedule.at(25, [0, 20])) == 5.0
    assert value_at(setting, schedule.at(70, [0, 20, 50])) == 2
    assert value_at(Spent(), schedule.at(45, [0, 20])) == 25.0

    place = schedule.at(45, [0, 20])
    assert (place.images, place.stage_start, place.stage_end, place.total) == (45, 20, 50, 80)
    with pytest.raises(SettingError, match="no value for height 4"):
        value_at({8: Spent()}, schedule.at(0, [0]))


@pytest.mark.parametrize(
    ("value", "height", "wanted"),
    [(5, 7, 5), ({4: "a", 16: "b"}, 4, "a"), ({4: "a", 16: "b"}, 15, "a"), ({4: "a", 16: "b"}, 99, "b")],
)
def test_the_largest_key_not_above_the_height_wins(value: object, height: int, wanted: object) -> None:
    assert at_height(value, height) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3000 steps", 24_000),
        ("2 epochs", 120_000),
        ("0.5 epochs", 30_000),
        ("7 images", 7),
        ("1 step", 8),
        (" 1_0steps ", 80),
        (0, 0),
    ],
)
def test_units(text: int | str, wanted: int) -> None:
    assert convert_to_images("fade_images", text, batch_size=8, dataset_length=60_000) == wanted


@pytest.mark.parametrize(
    "value", ["3000", "steps", "-1 steps", "3 weeks", "_ steps", "1__0 steps", "1.5.5 epochs", 1.5, True, -1, None]
)
def test_budgets_that_are_none(value: object) -> None:
    with pytest.raises(ValueError, match=r"^fade_images "):
        convert_to_images("fade_images", value, 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "stable", "wanted"),
    [
        ("20 steps", "10 steps", 10 * 8 + 10 * 2),  # as many as without a total
        ("25 steps", "10 steps", 10 * 8 + 15 * 2),
        ("5 steps", "10 steps", 5 * 8),
        ("20 steps", 10, 2 * 8 + 18 * 2),  # two batches of the first stage are more than its budget
        ("0.5 epochs", "10 steps", 50),
        (70, "10 steps", 70),
    ],
)
def test_the_steps_of_a_run_are_batches_of_the_stages_in_which_they_are_taken(
    total: int | str, stable: int | str, wanted: int
) -> None:
    chosen = ScheduleSettings((4, 8), 0, stable, batch_size={4: 8, 8: 2}, total_images=total)
    assert chosen.resolve(100, 1, 0).total == wanted


def test_more_steps_than_can_be_counted_are_refused() -> None:
    steps = f"{LARGEST_WHOLE_NUMBER // 4} steps"
    chosen = ScheduleSettings((4,), 0, 8, batch_size=8, total_images=steps)
    with pytest.raises(ValueError, match=r"^total_images must be at most \d+ images"):
        chosen.resolve(100, 1, 0)
    with pytest.raises(SettingError, match=r"^stable_images must be at most \d+ images"):
        ScheduleSettings((4,), 0, 10**310, batch_size=8)


def test_sizes() -> None:
    assert check_sizes((4, 8, 16)) == [(4, 4), (8, 8), (16, 16)]
    assert check_sizes([(4, 6), [8, 12], (24, 36)]) == [(4, 6), (8, 12), (24, 36)]
    assert check_sizes([5, 15, 45]) == [(5, 5), (15, 15), (45, 45)]


@pytest.mark.parametrize(
    "sizes", [(), 4, "4", (7, 15), (8, 8), (8, 4), (0, 0), (-4,), (4, (8, 12)), (4.0, 8.0), (True,), ("4",), (None,)]
)
def test_sizes_that_do_not_grow(sizes: object) -> None:
    with pytest.raises(ValueError, match=r"^sizes "):
        check_sizes(sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 0),
        ("batch_size", 2.0),
        ("batch_size", {8: 4}),
        ("batch_size", {"4": 4}),
        ("fade_images", -1),
        ("stable_images", "many"),
        ("total_images", 0),
        ("total_images", "0 steps"),
        ("sizes", (7, 15)),
    ],
)
def test_errors_name_the_setting(name: str, value: object) -> None:
    given_: dict = {"sizes": (4, 8), "fade_images": 10, "stable_images": 10, "batch_size": 4, name: value}
    with pytest.raises(ValueError, match=f"^{name}"):
        ScheduleSettings(**given_)


def test_a_run_of_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        ScheduleSettings((4,), 10, 0, 4).resolve(10, 1, 0)
    for total in ("0.4 images", "0.01 epochs"):
        with pytest.raises(SettingError, match=f"^total_images is less than one image: '{total}'"):
            ScheduleSettings((4,), 10, 8, 4, total).resolve(10, 1, 0)


def test_a_run_begins_with_ticks_that_are_closer_together() -> None:
    """Ticks at shares of the first one, where those are at least four batches."""
    demo = ScheduleSettings((7, 14), 0, 9_600, 32).resolve(100, 1, 0)
    assert demo.list_early_ticks(4_000) == [250, 500, 1_000, 2_000]
    assert demo.list_early_ticks(2_047) == [256, 512, 1_024]
    assert demo.list_early_ticks(255) == []
    assert demo.list_early_ticks(256) == [128]
