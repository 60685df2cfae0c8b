"""Ask whether a verdict stands with other averages of the generator and with other metrics.

A verdict of this project was withdrawn because one setting, the half-life of the average, had turned its sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROBUST = "robust"
"""What a verdict is that all checks agree with."""

SHOWN = ("n", "seeds", "order", "mean", "interval", "sign", "p", "holm", "equivalence_holm", "verdict")
"""Entries of a contrast that a check keeps. With looks, `seeds` are those of the look that decided the check."""


def name_average(average: str | float) -> str:
    """Return the name of an average that is given by its name or by its width, as `evaluate` gives it."""
    return average if isinstance(average, str) else f"width_{average:g}"


def name_value(metric: str, average: str | float | None) -> str:
    """Return the name of a metric's value with a further average (`FID short`); None for that of the endpoint."""
    return metric if average is None else f"{metric} {name_average(average)}"


@dataclass(frozen=True)
class Check:
    """A value that must give the verdict of the primary.

    Attributes:
        metric: Name of the metric's value.
        average: Name or width of the average; None for that of the endpoint.
    """

    metric: str
    average: str | float | None

    @property
    def value(self) -> str:
        """The name of the value among the results."""
        return name_value(self.metric, self.average)


def list_checks(primary: str, confirm: Sequence[str], averages: Sequence[str | float]) -> list[Check]:
    """Return all values but the primary: it, and each confirming metric, with each average."""
    metrics = (primary, *confirm)
    grid = [Check(metric, average) for metric in metrics for average in (None, *averages)]
    return grid[1:]


def judge_robustness(entry: Mapping[str, Any], checks: Sequence[tuple[Check, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return what a confirmatory contrast's verdict depends on.

    A check agrees if its verdict is the same and, where that says that the variants differ, if the same side is better.

    Args:
        entry: The contrast, compared by the primary.
        checks: The same contrast, compared by other values.

    Returns:
        `robustness`: `robust`, `undecided throughout`, or `depends on the average`, `the metric` or both. `checks`: of
        each `metric`, `average` (its name, or None), the entries `SHOWN`, and whether it `agrees`.
    """
    rows = []
    disagreeing: list[Check] = []
    for check, other in checks:
        agrees = _find_answer(other) == _find_answer(entry)
        if not agrees:
            disagreeing.append(check)
        # What is shown of a check beside its agreement.
        average = None if check.average is None else name_average(check.average)
        shown = {name: other.get(name) for name in SHOWN}
        rows.append({"metric": check.metric, "average": average, **shown, "agrees": agrees})
    return {"robustness": _describe(entry, disagreeing), "checks": rows}


def _find_answer(entry: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the verdict, and whether values are better with the contrast's positive side, if it says so."""
    verdict = entry["verdict"]
    if not verdict.startswith("different"):
        return verdict, False
    return verdict, (entry["sign"] < 0) == (entry["direction"] == "lower")


def _describe(entry: Mapping[str, Any], disagreeing: Sequence[Check]) -> str:
    primary = entry["metric"]
    if not disagreeing:
        return "undecided throughout" if entry["verdict"] == "undecided" else ROBUST
    by_average = any(check.metric == primary for check in disagreeing)
    by_metric = any(check.average is None for check in disagreeing)
    if by_average and not by_metric:
        return "depends on the average"
    if by_metric and not by_average:
        return "depends on the metric"
    return "depends on the average and the metric"
