"""Several looks at a growing number of pairs: errors by counting, predictions by simulation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from scipy import stats

from pggan_kit.ablation import flips_at_looks
from pggan_kit.ablation import sequential as sq
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.error_spending import SPENDING
from pggan_kit.ablation.flips_at_looks import FlipLook
from pggan_kit.ablation.sequential import GOES_ON, Look, Rules, Sample


def follow(rules: Rules, samples: Mapping[str, list[Sample]]) -> dict[str, list[Look]]:
    """Return all looks of some contrasts, each from its samples at all looks."""
    looks: dict[str, list[Look]] = {name: [] for name in samples}
    undecided = list(samples)
    for number in range(1, len(rules.looks) + 1):
        if undecided:
            own = {name: samples[name][:number] for name in undecided}
            for name, look in sq.take_look(rules, own, looks).items():
                looks[name].append(look)
            undecided = [name for name in undecided if looks[name][-1].decision == GOES_ON]
    return looks


def follow_differences(rules: Rules, d: Mapping[str, np.ndarray]) -> dict[str, list[Look]]:
    return follow(rules, {name: [Sample(own[:n], own[:n]) for n in rules.looks] for name, own in d.items()})


def draw_contrasts(rng: np.random.Generator, means: list[float], pairs: int) -> dict[str, np.ndarray]:
    """Return the differences of variants to one baseline: correlated, of unequal variances, also between pairs."""
    spread = rng.choice((0.3, 1.0, 2.0), size=pairs)
    baseline = rng.normal(0, 1, pairs) * spread
    differences = {}
    for number, mean in enumerate(means):
        differences[str(number)] = mean + rng.normal(0, 0.5 + number, pairs) * spread - baseline
    return differences


def count_false_differences(tries: int, means: list[float], spending: str) -> float:
    """Return how often any contrast without an effect is found to differ.

    Nothing stops for futility or equivalence, which could only lower the error.
    """
    rules = Rules((7, 9, 12), spending, 0.0, 1e-9, len(means))
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(tries):
        d = draw_contrasts(rng, means, 12)
        null = [str(number) for number, mean in enumerate(means) if mean == 0]
        looks = follow_differences(rules, d)
        wrong += any(looks[name][-1].decision == "different" for name in null)
    return wrong / tries


def allow(tries: int) -> float:
    """Return 5 %, and three standard errors of a share of as many tries."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / tries)


@pytest.fixture
def no_equivalence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of equivalence take most of the time of a simulation about differences."""
    monkeypatch.setattr(sq, "_test_equivalence", lambda sample, margin: None)


@pytest.mark.parametrize("means", [[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]], ids=["no effect", "one effect"])
@pytest.mark.usefixtures("no_equivalence")
def test_false_differences_are_no_more_than_the_error(means: list[float]) -> None:
    """Over all contrasts and looks; also where one effect is real, whose share of the error goes to the others."""
    assert 0.01 < count_false_differences(300, means, "pocock") < allow(300)


@pytest.mark.slow
@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("means", [[0.0], [0.0, 0.0, 0.0], [3.0, 3.0, 0.0]], ids=str)
@pytest.mark.usefixtures("no_equivalence")
def test_false_differences_of_many_tries(means: list[float], spending: str) -> None:
    assert 0.015 < count_false_differences(4_000, means, spending) < allow(4_000)


def count_false_equivalences(tries: int, contrasts: int) -> float:
    """Return how often any of some contrasts, all of which differ by the margin, is called equivalent."""
    rules = Rules((8, 20), "pocock", 0.0, 0.4, contrasts)
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(tries):
        baseline = rng.normal(0, 0.3, 20)
        d = {str(number): 0.4 + rng.normal(0, 0.3, 20) - baseline for number in range(contrasts)}
        wrong += any("equivalent" in looks[-1].decision for looks in follow_differences(rules, d).values())
    return wrong / tries


@pytest.fixture
def no_flips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign flips take most of the time of a simulation about equivalence, which then stops for nothing else."""
    nothing = FlipLook(1.0, 0.0, math.inf, 0.0, False)
    monkeypatch.setattr(sq, "test_by_flips", lambda scores, spent, total: nothing)


@pytest.mark.usefixtures("no_flips")
@pytest.mark.parametrize(("contrasts", "tries"), [(1, 400), pytest.param(3, 4_000, marks=pytest.mark.slow)])
def test_false_equivalences_are_no_more_than_the_error(contrasts: int, tries: int) -> None:
    assert 0.01 < count_false_equivalences(tries, contrasts) < allow(tries)


def test_looks_save_pairs_where_there_is_an_effect_and_where_there_is_none() -> None:
    """And the decisions are right: of 12 pairs a clear effect needs 8, and equivalence too."""
    rules = Rules((8, 12), "pocock", sq.FUTILITY, 1.0, 1)
    rng = np.random.default_rng(0)
    decisions: dict[str, Counter[str]] = {}
    pairs: dict[str, float] = {}
    cases = {"large": (2.0, 0.8), "none": (0.0, 0.5), "too wide": (0.3, 3.0)}
    for case, (mean, sd) in cases.items():
        looks = [follow_differences(rules, {"a": rng.normal(mean, sd, 12)})["a"] for _ in range(80)]
        decisions[case] = Counter(own[-1].decision for own in looks)
        pairs[case] = float(np.mean([own[-1].pairs for own in looks]))
    assert decisions["large"]["different"] > 75 and pairs["large"] < 8.5
    assert decisions["none"]["equivalent"] > 65 and pairs["none"] < 9
    assert decisions["too wide"]["futile"] > 40 and pairs["too wide"] < 10


def make_differences(mean: float, pairs: int, sd: float = 1.0) -> np.ndarray:
    """Return differences whose first pairs, of any even number, have about this mean and spread."""
    signs = np.resize((1.0, -1.0), pairs)
    return mean + sd * signs * (1 + 0.01 * np.arange(pairs))


def test_the_share_of_a_found_difference_goes_to_the_others() -> None:
    """A contrast that is just not different at a third of the error is at a half, once another one is found."""
    rules = Rules((8, 12), "pocock", 0.0, 1e-9, 2)
    rng = np.random.default_rng(5)
    d = next(
        own
        for own in (rng.normal(0.8, 1.0, 12) for _ in range(500))
        if not follow_differences(rules, {"a": own})["a"][0].decision.startswith("different")
        and flips_at_looks.test_by_flips([own[:8]], rules.spend(1, 2), 12).rejects
    )
    found = follow_differences(rules, {"a": d, "b": np.full(12, 5.0) + d / 100})
    assert [found[name][0].decision for name in "ab"] == ["different", "different"]
    assert [found[name][0].level for name in "ab"] == [0.05, 0.025]
    alone = follow_differences(rules, {"a": d, "b": d * np.resize((1, -1), 12)})
    assert alone["a"][0].decision == GOES_ON and alone["a"][0].level == 0.025


def test_a_contrast_may_differ_by_less_than_the_margin() -> None:
    rules = Rules((8, 12), "pocock", 0.1, 5.0, 1)
    (look,) = follow_differences(rules, {"a": make_differences(1.0, 12, 0.1)})["a"]
    assert look.decision == look.verdict == "different, by less than the margin" and look.pairs == 8
    assert look.equivalence is not None and look.equivalence < look.equivalence_boundary


def test_futility_is_predicted_and_stops_no_contrast_that_a_plan_lets_go_on() -> None:
    d = {"a": make_differences(0.02, 20)}
    (look,) = follow_differences(Rules((8, 20), "pocock", 0.1, 0.1, 1), d)["a"]
    assert (look.decision, look.verdict) == ("futile", "undecided") and look.predicted is not None
    looks = follow_differences(Rules((8, 20), "pocock", 0.0, 0.1, 1), d)["a"]
    assert [own.decision for own in looks] == [GOES_ON, "undecided"]
    assert looks[0].predicted == look.predicted and looks[1].predicted is None


@pytest.mark.parametrize("mean", [0.0, 0.4, -0.6])
def test_the_predicted_probability_is_that_of_simulated_futures(mean: float) -> None:
    """Draw spread, mean and the pairs to come from their posterior, and count."""
    rules = Rules((10, 20), "pocock", 0.1, 0.6, 1)
    predicted = float(sq.predict_decision(rules, 10, np.array(mean), np.array(0.9), 1, 1))
    rng = np.random.default_rng(0)
    variance = 9 * 0.9**2 / rng.chisquare(9, 40_000)
    true_mean = rng.normal(mean, np.sqrt(variance / 10))
    last_mean = (10 * mean + 10 * rng.normal(true_mean, np.sqrt(variance / 10))) / 20

    error = 0.9 / math.sqrt(20)
    different_from = stats.t.isf(rules.find_level(1, 1, 2) / 2, 19) * error
    equivalent_to = 0.6 - stats.t.isf(rules.find_level(1, 1, 1), 19) * error
    assert 0 < equivalent_to < different_from
    decided = (np.abs(last_mean) >= different_from) | (np.abs(last_mean) <= equivalent_to)
    assert predicted == pytest.approx(decided.mean(), abs=0.01)


def test_where_every_future_is_decided_nothing_is_futile() -> None:
    """With a wide margin a mean is a difference, or equivalent, or both."""
    rules = Rules((10, 20), "pocock", 0.1, 50.0, 1)
    for mean, sd in ((0.0, 1.0), (49.9, 0.1), (1.0, 0.0)):
        assert float(sq.predict_decision(rules, 10, np.array(mean), np.array(sd), 1, 1)) == pytest.approx(1.0)


def test_a_run_without_a_value_is_ranked_and_never_equivalent() -> None:
    rules = Rules((8, 12), "pocock", 0.9, 50.0, 1)
    d = make_differences(0.0, 12)
    d[3] = math.inf
    samples = [Sample(np.array(st.rank_with_signs(d[:n].tolist())), None) for n in rules.looks]
    first, last = follow(rules, {"a": samples})["a"]
    assert first.ranks and first.equivalence is None and first.predicted is None, "so it is not futile either"
    assert (first.decision, last.decision) == (GOES_ON, "undecided")
    assert last.p == st.run_sign_flip_test(st.rank_with_signs(d.tolist())).p


def test_repeated_intervals_of_all_looks_hold_the_mean_together() -> None:
    rules = Rules((6, 10, 14), "pocock", 0.1, 0.1, 3)
    d = np.random.default_rng(0).normal(0.5, 1.0, (2_000, 14))
    holds: dict[Callable[..., st.Interval], float] = {}
    for interval in (sq.compute_repeated_interval, compute_students_interval):
        all_hold = 0
        for own in d:
            bounds = [
                interval(rules, look, n, own[:n].mean(), own[:n].std(ddof=1)) for look, n in enumerate(rules.looks, 1)
            ]
            all_hold += all(low < 0.5 < high for low, high in bounds)
        holds[interval] = all_hold / len(d)
    assert holds[sq.compute_repeated_interval] == pytest.approx(0.95, abs=0.015)
    assert holds[compute_students_interval] < 0.92


def compute_students_interval(rules: Rules, look: int, n: int, mean: float, sd: float) -> st.Interval:
    half = sd / math.sqrt(n) * {6: 2.5706, 10: 2.2622, 14: 2.1604}[n]  # t(0.975) of n - 1, from a table
    return st.Interval(mean - half, mean + half)


@pytest.mark.parametrize("mean", [0.0, 0.8])
def test_the_expected_stops_are_those_of_sign_flips(mean: float) -> None:
    rules = Rules((8, 11), "pocock", sq.FUTILITY, 1e-9, 1)
    rng = np.random.default_rng(1)
    stopped = [follow_differences(rules, {"a": rng.normal(mean, 1.0, 11)})["a"][-1].look for _ in range(150)]
    stops = sq.expect_stops(rules, mean)
    assert sum(stops) == pytest.approx(1.0)
    assert stops[0] == pytest.approx(stopped.count(1) / 150, abs=0.1)
