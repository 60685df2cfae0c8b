"""Group-sequential tests of paired differences: several looks at a growing number of pairs, one error over all looks.

Pure functions of numbers. A *look* compares the first pairs of a plan. How much of the error each look may spend is in
`error_spending`. Differences are tested by sign flips (`flips_at_looks`), and equivalence by two one-sided t-tests at
levels that hold for normal differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.error_spending import find_levels, spend_on_hypothesis
from pggan_kit.ablation.flips_at_looks import FlipLook, test_by_flips

FUTILITY = 0.1
"""Predicted probability of a decision below which a contrast stops undecided, unless a plan states another one."""

GOES_ON = "goes on"
"""Decision of a look after which a contrast needs more pairs."""

FUTILE = "futile"
"""Decision of a look after which a contrast is left undecided, since its last look would hardly decide it."""


@dataclass(frozen=True)
class Rules:
    """What a plan fixes about its looks.

    Attributes:
        looks: Number of pairs of each look.
        spending: One of `error_spending.SPENDING`.
        futility: Predicted probability of a decision below which a contrast is left undecided.
        margin: Largest difference that counts as none.
        contrasts: Number of confirmatory contrasts.
    """

    looks: tuple[int, ...]
    spending: str
    futility: float
    margin: float
    contrasts: int

    def spend(self, left: int, sides: int) -> tuple[float, ...]:
        """Return the error that may be spent by each look on one of the hypotheses that are left."""
        return spend_on_hypothesis(self.spending, self.looks, left, sides)

    def find_level(self, look: int, left: int, sides: int) -> float:
        """Return the level of a t-test at a look, of one of the hypotheses that are left."""
        return find_levels(self.looks, self.spend(left, sides), sides)[look]


@dataclass(frozen=True)
class Sample:
    """What is known of a contrast at a look.

    Attributes:
        scores: Differences of the look's pairs, or their signed ranks if a run has no value.
        differences: The differences; None if a run has no value.
    """

    scores: np.ndarray
    differences: np.ndarray | None


@dataclass(frozen=True)
class Look:
    """What a look found about a contrast.

    Attributes:
        look: Its number, from 1.
        pairs: Number of its pairs.
        ranks: Whether signed ranks were tested, since a run has no value.
        p: p-value of the sign flips at this look alone.
        statistic: |mean| of the differences, or of the signed ranks.
        boundary: Smallest |mean| that is a difference at this look; None if none is.
        level: Error over all looks that this contrast has at this look, after Holm's correction.
        spent: Error spent by this look, earlier ones included: the share of the sign patterns that are rejected.
        equivalence: p-value of equivalence (TOST) at this look alone; None if it is not tested.
        equivalence_boundary: p-value below which the contrast is equivalent at this look.
        predicted: Predicted probability that the last look decides; None at the last look, and with ranks.
        decision: `different`, `different, by less than the margin`, `equivalent`, `futile` (stopped, undecided),
            `goes on`, or, at the last look, `undecided`.
    """

    look: int
    pairs: int
    ranks: bool
    p: float
    statistic: float
    boundary: float | None
    level: float
    spent: float
    equivalence: float | None
    equivalence_boundary: float
    predicted: float | None
    decision: str

    @property
    def verdict(self) -> str:
        """The verdict of a contrast that stops here, or of a check that another contrast stops here."""
        return "undecided" if self.decision in (FUTILE, GOES_ON) else self.decision


def take_look(
    rules: Rules, samples: Mapping[str, Sequence[Sample]], past: Mapping[str, Sequence[Look]]
) -> dict[str, Look]:
    """Decide about the contrasts that are still undecided.

    Differences and equivalences are two families of hypotheses. In each, Holm's steps are taken at each look: a
    hypothesis is tested at its Bonferroni share of the error among those of its family that no look has rejected,
    stopped ones included. It is rejected only if the tests at all larger shares reject too. So if any of `m` true
    hypotheses is rejected, one of their tests at the share 1 / m rejects, and the probability of that is at most the
    error.

    Args:
        rules: The plan's rules.
        samples: Samples of each undecided contrast, by its name: one of each look up to this one.
        past: Looks that were taken of each contrast of the family, decided or not.
    """
    look = len(next(iter(samples.values()))) - 1
    tests = _LookTests(rules, look, samples)

    # Of each family, what earlier looks have rejected is left out.
    decided = [looks[-1].decision for looks in past.values() if looks]
    left = rules.contrasts - sum(decision.startswith("different") for decision in decided)
    different = _step_down(samples, left, tests.is_different)
    left -= len(different)
    equivalence_left = rules.contrasts - sum(decision.endswith(("equivalent", "margin")) for decision in decided)
    equivalent = _step_down(samples, equivalence_left, tests.is_equivalent)
    equivalence_left -= len(equivalent)

    looks = {}
    for name in samples:
        shares = (different.get(name, left), equivalent.get(name, equivalence_left))
        looks[name] = tests.describe(name, shares, name in different, name in equivalent)
    return looks


class _LookTests:
    """The tests of one look at some contrasts. Sign flips are many: each test is made once.

    Args:
        rules: The plan's rules.
        look: Number of the look, from 0.
        samples: See `take_look`.
    """

    def __init__(self, rules: Rules, look: int, samples: Mapping[str, Sequence[Sample]]) -> None:
        self.rules = rules
        self.look = look
        self.samples = samples
        self._flips: dict[tuple[str, int], FlipLook] = {}
        self._equivalence = {name: _test_equivalence(own[-1], rules.margin) for name, own in samples.items()}

    def is_different(self, name: str, left: int) -> bool:
        """Return whether the test of a difference rejects at the share of `left` hypotheses and at all larger ones."""
        return all(self._test_difference(name, share).rejects for share in range(left, 0, -1))

    def is_equivalent(self, name: str, left: int) -> bool:
        """Return whether the test of equivalence rejects at the share of `left` hypotheses and at all larger ones."""
        p = self._equivalence[name]
        return p is not None and p < self._find_equivalence_level(left)

    def describe(self, name: str, shares: tuple[int, int], is_different: bool, is_equivalent: bool) -> Look:
        """Return what the look found about a contrast.

        Args:
            name: The contrast.
            shares: Numbers of hypotheses of a difference and of equivalence that were left when it was tested.
            is_different: Whether it is different.
            is_equivalent: Whether it is equivalent.
        """
        left, equivalence_left = shares
        tests = [self._test_difference(name, share) for share in range(1, left + 1)]
        boundary = max(test.boundary for test in tests)

        # There is nothing to predict at the last look.
        predicted = None
        if self.look < len(self.rules.looks) - 1:
            predicted = _predict_from_sample(self.rules, self.samples[name][-1], left, equivalence_left)
        return Look(
            look=self.look + 1,
            pairs=self.rules.looks[self.look],
            ranks=self.samples[name][-1].differences is None,
            p=tests[0].p,
            statistic=tests[0].statistic,
            boundary=boundary if math.isfinite(boundary) else None,
            level=st.ALPHA / left,
            spent=tests[-1].spent,
            equivalence=self._equivalence[name],
            equivalence_boundary=self._find_equivalence_level(equivalence_left),
            predicted=predicted,
            decision=_decide(self.rules, self.look, is_different, is_equivalent, predicted),
        )

    def _test_difference(self, name: str, left: int) -> FlipLook:
        key = (name, left)
        if key not in self._flips:
            scores = [sample.scores for sample in self.samples[name]]
            self._flips[key] = test_by_flips(scores, self.rules.spend(left, 2), self.rules.looks[-1])
        return self._flips[key]

    def _find_equivalence_level(self, left: int) -> float:
        return min(self.rules.find_level(self.look, share, 1) for share in range(1, left + 1))


def _test_equivalence(sample: Sample, margin: float) -> float | None:
    """Return the p-value of equivalence; None if a run has no value, or there are fewer than two pairs."""
    if sample.differences is None or len(sample.differences) < 2:
        return None
    return st.run_equivalence_test(sample.differences.tolist(), margin)


def _step_down(names: Collection[str], left: int, is_rejected: Callable[[str, int], bool]) -> dict[str, int]:
    """Return the rejected hypotheses, each with how many were left when it was."""
    rejected: dict[str, int] = {}
    while True:
        now_left = left - len(rejected)
        found = [name for name in names if name not in rejected and is_rejected(name, now_left)]
        if not found:
            return rejected
        rejected |= dict.fromkeys(found, now_left)


def _decide(rules: Rules, look: int, is_different: bool, is_equivalent: bool, predicted: float | None) -> str:
    """Return the decision of a look about a contrast."""
    if is_different:
        return "different, by less than the margin" if is_equivalent else "different"
    if is_equivalent:
        return "equivalent"
    if look == len(rules.looks) - 1:
        return "undecided"
    if predicted is not None and predicted < rules.futility:
        return FUTILE
    return GOES_ON


def _predict_from_sample(rules: Rules, sample: Sample, left: int, equivalence_left: int) -> float | None:
    """Return what `predict_decision` gives; None if a run has no value, or there are fewer than two pairs."""
    d = sample.differences
    if d is None or len(d) < 2:
        return None
    return float(predict_decision(rules, len(d), d.mean(), np.array(st.compute_spread(d)), left, equivalence_left))


def predict_decision(
    rules: Rules, n: int, mean: np.ndarray, sd: np.ndarray, left: int, equivalence_left: int
) -> np.ndarray:
    """Return the probability that the last look finds a difference or equivalence, predicted from the first n pairs.

    Under the reference prior, the mean of all N pairs has a t-distribution around that of the first n, with the scale
    sd * sqrt(1 / n - 1 / N). The last look is taken to test by t, with the spread so far.

    Args:
        rules: The plan's rules.
        n: Number of pairs so far, at least two.
        mean: Means of these pairs' differences, of any shape.
        sd: Their standard deviations, of the same shape.
        left: Number of hypotheses of a difference that are left, see `take_look`.
        equivalence_left: Number of those of equivalence.
    """
    total = rules.looks[-1]
    last = len(rules.looks) - 1
    sd = np.maximum(sd, np.finfo(float).tiny)
    scale = sd * math.sqrt(1 / n - 1 / total)

    def predict_below(value: np.ndarray) -> np.ndarray:
        """Return the probability that the mean of all pairs is below a value."""
        with np.errstate(over="ignore"):  # without any spread
            return np.asarray(special.stdtr(n - 1, (value - mean) / scale))

    # Means of all pairs that would be a difference, and that would be equivalent.
    error = sd / math.sqrt(total)
    different_from = -error * special.stdtrit(total - 1, rules.find_level(last, left, 2) / 2)
    t_equivalent = special.stdtrit(total - 1, rules.find_level(last, equivalence_left, 1))
    equivalent_to = np.maximum(0.0, rules.margin + error * t_equivalent)
    outside = 1 - predict_below(different_from) + predict_below(-different_from)
    inside = predict_below(equivalent_to) - predict_below(-equivalent_to)
    return np.asarray(np.minimum(1.0, outside + inside))


def expect_stops(rules: Rules, mean: float) -> list[float]:
    """Return the probability that a contrast stops at each look.

    Its differences are normal, with a standard deviation of 1. Simulated with a seed of its own, with t-tests instead
    of sign flips, at the level before any hypothesis is rejected; right to about 2 %. Equivalence, which depends on how
    large the margin is beside the spread, stops nothing here.

    Args:
        rules: The plan's rules.
        mean: Mean of the differences, in standard deviations.
    """
    # Simulated contrasts, which equivalence does not stop.
    rules = replace(rules, margin=0.0)
    d = np.random.default_rng(0).normal(mean, 1.0, (st.SIMULATED, rules.looks[-1]))

    # At each look some of those that are left stop: for efficacy, or for futility.
    goes_on = np.ones(len(d), bool)
    stops = []
    for look, pairs in enumerate(rules.looks[:-1]):
        own_mean = d[:, :pairs].mean(1)
        own_sd = d[:, :pairs].std(1, ddof=1)
        p = 2 * special.stdtr(pairs - 1, -np.abs(own_mean) / own_sd * math.sqrt(pairs))
        predicted = predict_decision(rules, pairs, own_mean, own_sd, rules.contrasts, rules.contrasts)
        is_stopped = (p < rules.find_level(look, rules.contrasts, 2)) | (predicted < rules.futility)
        stops.append(float((goes_on & is_stopped).mean()))
        goes_on &= ~is_stopped
    return [*stops, float(goes_on.mean())]


def compute_repeated_interval(rules: Rules, look: int, n: int, mean: float, sd: float) -> st.Interval:
    """Return the repeated confidence interval of a mean at a look (Jennison and Turnbull 1989).

    The intervals of all looks together contain the mean with a probability of 95 %, so that of the last look that was
    taken does so too, whatever made the looks stop. It is Student's, at the level that this look has of one contrast.

    Args:
        rules: The plan's rules.
        look: Number of the look, from 1.
        n: Number of differences, at least two.
        mean: Their mean.
        sd: Their standard deviation.
    """
    half = -float(special.stdtrit(n - 1, rules.find_level(look - 1, 1, 2) / 2)) * sd / math.sqrt(n)
    return st.Interval(mean - half, mean + half)
