"""The steps of the planned schedule: where they begin, and how many there are, if each stage spends just its budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pggan_kit.components import Update
from pggan_kit.errors import TrainingError
from pggan_kit.schedule import FADE, Position, Schedule

MOST_GROUPS = 200
"""Number of places at which an update is asked how many batches a step draws, where nothing else is asked there."""


class StepGroup(NamedTuple):
    """Steps that follow each other and draw as many reals each.

    Attributes:
        begin: Clock at the first of them.
        steps: Number of steps.
        images: Reals that each of them draws.
    """

    begin: int
    steps: int
    images: int


def count_drawn_batches(update: Update, position: Position) -> int:
    """Return how many batches of reals a step draws that begins at a place on the clock; see `Update`.

    Raises:
        ConfigError: A setting of the update is out of range.
        TrainingError: The update gives something else than a whole number of at least 1.
    """
    count = getattr(update, "count_drawn_batches", None)
    if count is None:
        return 1
    batches: object = count(position)
    if not isinstance(batches, int) or batches < 1:
        raise TrainingError(
            f"updates.{type(update).__name__}.count_drawn_batches() returned {batches!r:.100} at {position}, and must "
            "return a whole number of at least 1"
        )
    return batches


def group_steps(
    update: Update, schedule: Schedule, starts: Sequence[int], begin: int, end: int, most: int = MOST_GROUPS
) -> Iterator[StepGroup]:
    """Yield the steps from `begin` to `end`, in groups for each of which the update is asked once.

    Where each step draws as many batches, their number is exact.

    Args:
        update: The update.
        schedule: The stages.
        starts: Clock at which each stage so far began. All steps lie within the last of these stages.
        begin: Clock at the first step.
        end: Clock from which on no step begins.
        most: Number of groups, or a few more.
    """
    batch_size = schedule.stages[len(starts) - 1].batch_size
    batches = -(-(end - begin) // batch_size)
    batches_of_a_group = -(-batches // most)

    images = begin
    while images < end:
        drawn_batches = count_drawn_batches(update, schedule.at(images, starts))
        drawn = drawn_batches * batch_size
        steps = min(max(1, batches_of_a_group // drawn_batches), -(-(end - images) // drawn))
        yield StepGroup(images, steps, drawn)
        images += steps * drawn


def count_steps(update: Update, schedule: Schedule, starts: Sequence[int], phase: str) -> int:
    """Return the number of steps of a phase of the last stage of `starts`, if nothing ends it early.

    Args:
        update: The update.
        schedule: The stages.
        starts: Clock at which each stage so far began.
        phase: `fade` or `stable`.
    """
    begin, end = find_phase(schedule, starts, phase)
    return sum(group.steps for group in group_steps(update, schedule, starts, begin, end))


def find_phase(schedule: Schedule, starts: Sequence[int], phase: str) -> tuple[int, int]:
    """Return the clock where a phase of the last stage of `starts` begins and where it ends, if nothing ends it early.

    Args:
        schedule: The stages.
        starts: Clock at which each stage so far began.
        phase: `fade` or `stable`.
    """
    end = schedule.end(starts)
    middle = min(end, starts[-1] + schedule.stages[len(starts) - 1].fade_images)
    if phase == FADE:
        return starts[-1], middle
    return middle, end
