"""Which group of runs is better, by the last values of each metric and the direction that the metric states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pggan_kit.report.run_groups import RunGroup, find_median, has_several, is_metric, list_runs, list_tags


@dataclass(frozen=True)
class Ranking:
    """Groups in the order of a metric's last values.

    Attributes:
        tag: The metric's tag.
        direction: Which values are better, `lower` or `higher` ones.
        groups: The groups that have values, those with the best median first.
        medians: Median of each of them.
    """

    tag: str
    direction: str
    groups: Sequence[RunGroup]
    medians: Sequence[float]

    def list_best(self) -> list[RunGroup]:
        """Return the groups whose median is the best; several where they are equal."""
        pairs = zip(self.groups, self.medians, strict=True)
        return [group for group, median in pairs if median == self.medians[0]]


def find_direction(groups: Sequence[RunGroup], tag: str) -> str | None:
    """Return which values of a metric are better; None where no run records it, or runs do not agree."""
    directions = {run.find_direction(tag) for run in list_runs(groups)} - {None}
    return directions.pop() if len(directions) == 1 else None


def rank_groups(groups: Sequence[RunGroup], tag: str) -> Ranking | None:
    """Return the order of groups by a metric.

    Args:
        groups: The groups of a report.
        tag: The metric's tag.

    Returns:
        The order. None where the metric's direction is not known, fewer than two groups have a value, or their last
        stages differ in size: distances of small images say nothing about those of large ones.
    """
    # What cannot be compared has no order.
    direction = find_direction(groups, tag)
    having = [group for group in groups if group.final(tag)]
    heights = {run.stages[-1].height for run in list_runs(having)}
    if direction is None or len(having) < 2 or len(heights) > 1:
        return None

    # By the medians of the groups.
    sign = 1.0 if direction == "lower" else -1.0
    medians = {group.name: float(find_median(group.final(tag))) for group in having}
    ordered = sorted(having, key=lambda group: sign * medians[group.name])
    return Ranking(tag, direction, ordered, [medians[group.name] for group in ordered])


def list_rankings(groups: Sequence[RunGroup]) -> list[Ranking]:
    """Return the order of groups by each metric that has one."""
    metrics = [tag for tag in list_tags(list_runs(groups)) if is_metric(tag)]
    rankings = [rank_groups(groups, tag) for tag in metrics]
    return [ranking for ranking in rankings if ranking is not None]


def describe_ranking(ranking: Ranking) -> str:
    """Return in words which group is best by a metric, and how far that is from chance."""
    # The two best, with their values.
    tag = ranking.tag
    best, second = ranking.groups[:2]
    value = "median of last values" if has_several(ranking.groups) else "last value"
    numbers = [f"{median:.4g}" for median in ranking.medians[:2]]
    name = tag.partition("/")[2]
    text = (
        f"{name}, {ranking.direction} is better: {best.name} has the best {value}, {numbers[0]}, before {second.name}, "
        f"{numbers[1]}."
    )

    # How far that is from chance.
    if len(best.runs) == 1 or len(second.runs) == 1:
        return f"{text} One run of a setting is one draw: with another seed the order may be another one."
    share = count_better_pairs(best.final(tag), second.final(tag), ranking.direction)
    percent = f"{100 * share:.0f} %"
    return f"{text} In {percent} of all pairs of a run of each, that of {best.name} is better (50 %: no difference)."


def count_better_pairs(values: Sequence[float], others: Sequence[float], direction: str) -> float:
    """Return the share of all pairs in which a value is better than the other one; equal ones count half."""
    differences = np.subtract.outer(np.array(others), np.array(values))
    if direction == "higher":
        differences = -differences
    return float((differences > 0).mean() + (differences == 0).mean() / 2)
