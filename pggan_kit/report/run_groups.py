"""Groups of runs that differ by their seed alone: each is one line of a plot and one row of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pggan_kit.report.plots import Summary, summarize_curves
from pggan_kit.report.run_record import RunRecord, is_finite
from pggan_kit.system.json_text import json_text

CORE_GROUPS = ("Loss", "Scores", "Progress", "Timing", "Resources", "Metrics")
"""Groups of the tags that the core has; a plugin's `measure_tick` may have others."""

SEED = "train.seed"
"""Setting by which the runs of a group differ."""

MOST_DRAWN = 8
"""Maximum of groups of which images are drawn, and which have a column of settings: those that were named first."""

MOST_LETTERS = 48
"""Maximum of letters in a group's name that is made of settings."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ by their seed alone.

    Attributes:
        name: Name for people, unique among the groups of a report: a run alone keeps its own.
        runs: The runs, in the order in which they were named.
        shown: The run whose images are drawn, under a name that says which of how many it is.
    """

    name: str
    runs: Sequence[RunRecord]
    shown: RunRecord

    @property
    def label(self) -> str:
        """The name in legends, with the number of runs."""
        if len(self.runs) == 1:
            return self.name
        return f"{self.name} ({len(self.runs)} runs)"

    def summarize(self, tag: str) -> Summary:
        """Return the median and the band of a tag over the clock."""
        curves = [run.curve(tag) for run in self.runs]
        return summarize_curves([curve for curve in curves if curve])

    def final(self, tag: str) -> list[float]:
        """Return the last values of a tag, of those runs that have one."""
        values = [run.final(tag) for run in self.runs]
        return [value for value in values if value is not None]


def group_runs(runs: Sequence[RunRecord]) -> list[RunGroup]:
    """Return the groups of a report's runs, in the order in which their first runs were named.

    A run that repeats the seed of another is no further sample of it: it belongs to the second such group.
    """
    # Runs of the same settings, each seed once.
    by_identity: dict[tuple[Any, ...], list[RunRecord]] = {}
    repeats: Counter[tuple[str, str | None]] = Counter()
    for run in runs:
        identity = identify_settings(run)
        seed = run.settings.get(SEED)
        number = repeats[identity, seed]
        repeats[identity, seed] += 1
        by_identity.setdefault((identity, number), []).append(run)

    # Each group is shown by one of its runs.
    members = list(by_identity.values())
    groups = []
    for name, own, shown in zip(name_groups(members), members, pick_shown(members), strict=True):
        if len(own) > 1:
            shown = replace(shown, name=f"{name}: {shown.name}, one of {len(own)} runs")
        groups.append(RunGroup(name, own, shown))
    return groups


def isolate_runs(runs: Iterable[RunRecord]) -> list[RunGroup]:
    """Return a group for each run."""
    return [RunGroup(run.name, [run], run) for run in runs]


def identify_settings(run: RunRecord) -> str:
    """Return a text that is the same for runs that differ by their seed alone.

    It has the settings in effect, those that changed as the run was resumed, plugins, objects that were passed in
    Python, the data, and all of these of the run that it began from.
    """
    plugins = [(row.get("name"), row.get("sha256")) for row in run.about.get("plugins", ())]
    begun = run.about.get("from")
    trunk = None
    if begun is not None:
        # A trunk that no longer exists is known by its folder alone.
        before = identify_settings(run.trunk) if run.trunk is not None else begun.get("run")
        trunk = (before, begun.get("images"))
    settings = {name: value for name, value in sorted(run.settings.items()) if name != SEED}
    parts = [settings, run.about.get("changes"), plugins, run.about.get("objects"), run.about.get("data"), trunk]
    return json_text(parts)


def list_differences(records: Sequence[RunRecord]) -> list[str]:
    """Return the names of the settings that differ between runs, in the order of their first appearance."""
    names = dict.fromkeys(name for run in records for name in run.settings)
    return [name for name in names if len({run.settings.get(name) for run in records}) > 1]


def name_groups(members: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Return a name for each group: a run's own where it is alone, otherwise the settings that differ, or a number."""
    firsts = [own[0] for own in members]
    if len(members) == 1 and len(members[0]) > 1:
        return ["all runs"]

    # A setting that only some have belongs to a part that only they chose.
    differences = [name for name in list_differences(firsts) if name != SEED]
    common = [name for name in differences if all(name in run.settings for run in firsts)]
    names = [_describe_settings(run, common) for run in firsts]
    if max(map(len, names)) > MOST_LETTERS:
        names = [_describe_settings_shortly(run, common) for run in firsts]
    usable = len(set(names)) == len(names) and max(map(len, names)) <= MOST_LETTERS
    chosen = []
    for number, (own, name) in enumerate(zip(members, names, strict=True), start=1):
        if len(own) == 1:
            chosen.append(own[0].name)
        elif usable:
            chosen.append(name)
        else:
            chosen.append(f"group {number}")
    return chosen


def _describe_settings(run: RunRecord, names: Sequence[str]) -> str:
    return ", ".join(f"{name.removeprefix('train.')} = {_shorten(run.settings[name])}" for name in names)


def _describe_settings_shortly(run: RunRecord, names: Sequence[str]) -> str:
    """Return settings by their class and parameter, `Adam.lr`: those of both networks are one where they are equal."""
    values: dict[str, dict[str, str]] = {}
    for name in names:
        scope, slash, selector = name.rpartition("/")
        values.setdefault(selector, {})[scope + slash] = _shorten(run.settings[name])

    texts = []
    for selector, by_scope in values.items():
        tail = ".".join(selector.split(".")[-2:]).removeprefix("train.")
        if len(set(by_scope.values())) == 1:
            texts.append(f"{tail} = {next(iter(by_scope.values()))}")
        else:
            texts += [f"{scope}{tail} = {value}" for scope, value in by_scope.items()]
    return ", ".join(texts)


def _shorten(value: str) -> str:
    """Return a setting's value without the marks of a component: `Linear` for `@switches.Linear()`."""
    if value.startswith("@"):
        return value.removeprefix("@").removesuffix("()").rpartition(".")[2]
    return value


def pick_shown(members: Sequence[Sequence[RunRecord]]) -> list[RunRecord]:
    """Return the run of each group that is drawn: one near the middle of its group, by the first metric.

    Where all groups have a seed in common, all are of one seed, so that images differ by the settings alone.
    """
    distances = [measure_distances(own) for own in members]
    seeds = [[run.settings.get(SEED) for run in own] for own in members]
    shared = [seed for seed in seeds[0] if all(seed in own for own in seeds)]
    if not shared:
        return [own[int(np.argmin(far))] for own, far in zip(members, distances, strict=True)]

    # The seed whose runs are least far from the middle together; of equal ones the first.
    places = [{seed: place for place, seed in reversed(list(enumerate(own)))} for own in seeds]

    def add_distances(seed: str | None) -> float:
        return sum(far[own[seed]] for far, own in zip(distances, places, strict=True))

    best = min(shared, key=add_distances)
    return [own[place[best]] for own, place in zip(members, places, strict=True)]


def measure_distances(runs: Sequence[RunRecord]) -> list[float]:
    """Return how many ranks each run is from the middle of a group, by the last value of the first metric."""
    metrics = [tag for tag in list_tags(runs) if is_metric(tag)]
    if not metrics:
        return [0.0] * len(runs)
    values = [run.final(metrics[0]) for run in runs]
    ranked = sorted(value for value in values if value is not None)
    middle = (len(ranked) - 1) / 2

    # A run without a value is farther than all others.
    return [len(runs) if value is None else abs(ranked.index(value) - middle) for value in values]


def find_median(values: Iterable[Any]) -> Any:
    """Return the median of the numbers among values, a number alone as it is; None where there is none."""
    numbers = [value for value in values if is_finite(value)]
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else float(np.median(numbers))


def find_quantile(values: Sequence[float], share: float) -> float | None:
    """Return the quantile of a share of values; None where there are none."""
    return float(np.quantile(values, share)) if values else None


def describe_seeds(runs: Sequence[RunRecord]) -> str:
    """Return the seeds of runs: `0 to 99` where they are without gaps, otherwise the first few."""
    seeds = [run.settings.get(SEED, "-") for run in runs]
    numbers = sorted(int(seed) for seed in seeds if seed.isdecimal())
    if len(numbers) == len(seeds) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    listed = ", ".join(seeds[:5])
    return f"{listed}, ..." if len(seeds) > 5 else listed


def describe_values(values: Iterable[Any]) -> Any:
    """Return a whole number that all runs have, otherwise the least and the greatest."""
    numbers = sorted(values)
    if numbers[0] == numbers[-1]:
        return numbers[0]
    return f"{numbers[0]:,} to {numbers[-1]:,}"


def has_several(groups: Sequence[RunGroup]) -> bool:
    """Return whether any group has more than one run."""
    return any(len(group.runs) > 1 for group in groups)


def list_tags(runs: Sequence[RunRecord]) -> list[str]:
    """Return the tags of all runs, each once."""
    return list(dict.fromkeys(tag for run in runs for tag in run.tags))


def is_metric(tag: str) -> bool:
    """Return whether a tag is a metric's value and not its floor."""
    return tag.startswith("Metrics/") and not tag.endswith("_floor")


def is_of_plugin(tag: str) -> bool:
    """Return whether a tag is of a group that only a plugin's `measure_tick` has."""
    return tag.partition("/")[0] not in CORE_GROUPS


def begin_head(groups: Sequence[RunGroup]) -> list[str]:
    """Return the first columns of a table with a row for each group."""
    return ["group", "runs"] if has_several(groups) else ["run"]


def begin_row(group: RunGroup, groups: Sequence[RunGroup]) -> list[Any]:
    """Return the first cells of a group's row, as in `begin_head`."""
    return [group.name, len(group.runs)] if has_several(groups) else [group.name]


def list_runs(groups: Sequence[RunGroup]) -> list[RunRecord]:
    """Return the runs of all groups."""
    return [run for group in groups for run in group.runs]
