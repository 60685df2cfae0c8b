"""Follow the looks of a plan: what they decided, and which runs the next one needs.

Everything follows from the plan and the results that are there. So an ablation that was killed comes to the same
decisions when it is started again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pggan_kit.ablation import sequential
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.sequential import Look, Rules, Sample

Key = tuple[str, int]
"""Variant and seed of a run."""

MakeSample = Callable[[Contrast, Sequence[int]], Sample]
"""Function that returns what is known of a contrast over some seeds, all of whose runs have ended."""


@dataclass(frozen=True)
class Progress:
    """How far the looks of a plan have come.

    Attributes:
        looks: Looks that were taken of each confirmatory contrast, by its name.
        shown: Runs that the looks taken needed: their values may be shown.
        wanted: Runs that are needed, those of the next look included; the same as `shown` after the last look.
    """

    looks: dict[str, list[Look]]
    shown: list[Key]
    wanted: list[Key]

    @property
    def count(self) -> int:
        """The number of looks that were taken."""
        return max((len(looks) for looks in self.looks.values()), default=0)


def make_rules(plan: Plan) -> Rules:
    """Return what a plan with looks fixes about them."""
    return Rules(tuple(plan.looks), plan.spending, plan.futility, plan.margin, len(plan.confirmatory))


def follow_looks(plan: Plan, ended: Collection[Key], make_sample: MakeSample) -> Progress:
    """Take each look whose runs have ended, and return what they decided and which runs are needed.

    A look needs the first pairs of the contrasts that the looks before it left undecided. Controls have their own
    number of seeds, and the first look waits for them too.

    Args:
        plan: A plan with looks.
        ended: Runs that have ended.
        make_sample: Function that returns what is known of a contrast.
    """
    rules = make_rules(plan)
    contrasts = {contrast.name: contrast for contrast in plan.confirmatory}
    looks: dict[str, list[Look]] = {name: [] for name in contrasts}
    counts = _count_seeds_of_controls(plan)
    undecided = list(contrasts)
    shown: list[Key] = []
    for number, pairs in enumerate(plan.looks, 1):
        # What a look needs: the pairs of those contrasts that no earlier look has decided.
        for name in undecided:
            for variant in contrasts[name].weights:
                counts[variant] = max(counts[variant], pairs)
        wanted = _list_first_runs(plan, counts)
        if not set(wanted) <= set(ended):
            return Progress(looks, shown, wanted)

        # Each look also sees the earlier ones, by which the error is spent.
        samples = {}
        for name in undecided:
            seeds = [plan.seeds[:own_pairs] for own_pairs in plan.looks[:number]]
            samples[name] = [make_sample(contrasts[name], own_seeds) for own_seeds in seeds]
        for name, look in sequential.take_look(rules, samples, looks).items():
            looks[name].append(look)
        shown = wanted
        undecided = [name for name in undecided if looks[name][-1].decision == sequential.GOES_ON]
        if not undecided:
            break
    return Progress(looks, shown, shown)


def _count_seeds_of_controls(plan: Plan) -> dict[str, int]:
    """Return how many seeds controls need, of themselves and of the variants that they are compared with."""
    counts = dict.fromkeys(plan.variants, 0)
    for contrast in plan.list_contrasts():
        own = [plan.controls[name] for name in contrast.weights if name in plan.controls]
        for name in contrast.weights:
            counts[name] = max(counts[name], min(own, default=0))
    return {name: plan.controls.get(name, count) for name, count in counts.items()}


def _list_first_runs(plan: Plan, counts: dict[str, int]) -> list[Key]:
    """Return the runs of the first seeds of each variant, in the order of the plan."""
    places = {seed: place for place, seed in enumerate(plan.seeds)}
    return [(name, seed) for name, seed in plan.list_runs() if seed in places and places[seed] < counts[name]]


def count_not_run(plan: Plan, progress: Progress) -> dict[str, int]:
    """Return how many planned runs of each variant no look needed; variants whose runs were all needed are left out."""
    not_run = {}
    for name in plan.variants:
        needed = sum(variant == name for variant, _ in progress.wanted)
        left = len(plan.select_seeds(name)) - needed
        if left:
            not_run[name] = left
    return not_run


def describe_look(plan: Plan, progress: Progress, number: int) -> str:
    """Return a line on what a look decided, without any estimate.

    Args:
        plan: A plan with looks.
        progress: Looks that were taken.
        number: The look, from 1.
    """
    decisions = [
        f"{name}: {looks[number - 1].decision}" for name, looks in progress.looks.items() if len(looks) >= number
    ]
    return f"look {number} of {len(plan.looks)}, {plan.looks[number - 1]} pairs: {'; '.join(decisions)}"


def spend_over_looks(plan: Plan) -> list[float]:
    """Return the error that may be spent by each look on all confirmatory contrasts, earlier looks included."""
    rules = make_rules(plan)
    return [rules.contrasts * error for error in rules.spend(rules.contrasts, 2)]


def find_levels(plan: Plan) -> list[float]:
    """Return the level at which each look tests the difference of a contrast, before any is found."""
    rules = make_rules(plan)
    return [rules.find_level(look, rules.contrasts, 2) for look in range(len(plan.looks))]


def find_detectable_means(plan: Plan) -> list[float | None]:
    """Return the mean that each look detects by itself in 80 % of cases, in standard deviations; None if it cannot."""
    return [st.find_detectable_mean(pairs, level) for pairs, level in zip(plan.looks, find_levels(plan), strict=True)]


def expect_runs(plan: Plan, mean: float) -> float:
    """Return how many runs the looks will need if all confirmatory contrasts have this mean, in standard deviations.

    Contrasts are taken to stop independently of each other; see `expect_stops`.
    """
    stops = sequential.expect_stops(make_rules(plan), mean)
    counts = _count_seeds_of_controls(plan)
    expected = 0.0
    for name in plan.variants:
        own = sum(name in contrast.weights for contrast in plan.confirmatory)
        if not own:
            expected += counts[name]
            continue
        # A variant is needed until the last one of its contrasts stops.
        stopped_before = 0.0
        stopped = 0.0
        for pairs, probability in zip(plan.looks, stops, strict=True):
            stopped += probability
            expected += max(pairs, counts[name]) * (stopped**own - stopped_before**own)
            stopped_before = stopped
    return expected
