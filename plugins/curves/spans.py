"""The part of the clock over which a curve moves."""

from __future__ import annotations

from pggan_kit import Position

SPANS = ("run", "stage", "phase")
"""What a curve may move over: the whole run, or each stage or each phase again."""


def find_span(over: str, position: Position) -> tuple[int, int]:
    """Return the image counts at which the run, or the stage or phase of a position, begins and ends.

    Ends are those of the schedule's budgets: where a switch decides, a stage may end earlier or later.
    """
    if over == "stage":
        return position.stage_start, position.stage_end
    if over == "phase":
        return position.phase_start, position.phase_end
    return 0, position.total
