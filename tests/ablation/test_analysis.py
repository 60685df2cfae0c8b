"""The analysis of an ablation: from made-up values, whose answer is known."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from helpers.made_up_ablation import BASE, NOISE, SEEDS, make_plan, make_results
from helpers.paths import ROOT
from scipy import stats

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.analysis import analyse_results, take_looks
from pggan_kit.ablation.comparison import compare_variants
from pggan_kit.ablation.contrasts import Contrast
from pggan_kit.ablation.cost import describe_contrasts
from pggan_kit.ablation.designs import make_factorial
from pggan_kit.ablation.table import render_text
from pggan_kit.ablation.verdicts import add_verdicts


def test_each_contrast_gets_its_answer() -> None:
    analysis = analyse_results(make_plan(), make_results({"a": 0.0, "b": 0.3 + NOISE, "c": NOISE / 4}))
    b, c = analysis["contrasts"]
    d = 0.3 + NOISE
    assert b["mean"] == pytest.approx(d.mean()) and b["sd"] == pytest.approx(d.std(ddof=1))
    assert b["interval"] == pytest.approx(list(stats.ttest_1samp(d, 0).confidence_interval()))
    assert b["correlation"] == pytest.approx(np.corrcoef(BASE + d, BASE)[0, 1])
    assert b["sign_flip"] == {"p": 2 / 2**10, "patterns": 2**10, "exact": True} and b["ranks"] is None
    assert b["verdict"] == "different" and c["verdict"] == "equivalent"
    assert b["holm"] == pytest.approx(min(1, 2 * b["p"])) and c["holm"] == pytest.approx(max(b["holm"], c["p"]))
    assert b["smallest_effect"] == pytest.approx(st.find_smallest_effect(list(d), 0.025)), "at Holm's first level"
    assert analysis["variants"]["a"] == {
        "trials": 10,
        "failed": 0,
        "censored": 0,
        "mean": pytest.approx(stats.gmean(np.exp(BASE))),
        "iqm": analysis["variants"]["a"]["iqm"],
        "floor": 0.5,
    }
    # The middle half of ten: without two at each end.
    assert analysis["variants"]["a"]["iqm"]["value"] == pytest.approx(math.exp(np.sort(BASE)[2:8].mean()))


def test_published_differences_are_computed_again_to_the_last_digit() -> None:
    """Test it on the published comparison. Its drawn sign patterns were those of another version of scipy."""
    folder = ROOT / "experiments" / "results" / "switch"
    published = {entry["variant"]: entry for entry in json.loads((folder / "analysis.json").read_text())["contrasts"]}
    results: dict[tuple[str, int], dict[str, Any]] = {}
    with (folder / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["metric"] == "FID":
                trial = {"failed": None, "rows": [], "revision": "r", "hardware": "h"}
                trial["rows"] = [{"metric": "FID", "value": float(row["value"]), "floor": None}]
                results[row["variant"], int(row["seed"])] = trial
    pairs = [["hard", "linear"], ["nudged", "linear"]]
    names = ["linear", "hard", "nudged"]
    kept = {key: result for key, result in results.items() if key[0] in names}
    plan = make_plan(
        variants={name: [] for name in names}, seeds=list(range(20)), contrasts=pairs, controls={"nudged": 6}
    )
    entries = analyse_results(plan, kept)["contrasts"]
    assert [entry["name"] for entry in entries] == ["hard - linear", "nudged - linear"]
    assert entries[1]["weights"] == {"nudged": 1.0, "linear": -1.0} and entries[1]["sign_flip"]["exact"]
    for entry in entries:
        same = ["against", "role", "seeds", "n", "failures", "correlation", "mean", "sd", "interval", "equivalence"]
        same += ["bootstrap", "ranks"]
        if entry["sign_flip"]["exact"]:
            same += ["sign_flip", "p"]
        old = published[entry["variant"]]
        assert {key: entry[key] for key in same} == {key: old[key] for key in same}

    # One look at all of its pairs decides by the same statistics, and to the same verdict.
    (look,) = take_looks(replace(plan, looks=[20]), kept).looks["hard - linear"]
    old = published["hard"]
    assert look.statistic == pytest.approx(abs(old["mean"]), rel=1e-12) and look.equivalence == old["equivalence"]
    assert look.p == pytest.approx(old["p"], abs=0.01) and look.verdict == entries[0]["verdict"] == old["verdict"]
    (with_look, _) = analyse_results(replace(plan, looks=[20]), kept)["contrasts"]
    assert with_look["interval"] == pytest.approx(old["interval"], rel=1e-9)
    assert {key: with_look[key] for key in same if key not in ("interval", "bootstrap")} == {
        key: entries[0][key] for key in same if key not in ("interval", "bootstrap")
    }


def test_a_published_plan_of_another_version_is_no_damaged_file(cli: Callable[..., Result]) -> None:
    folder = ROOT / "experiments" / "results" / "switch"
    shown = cli("ablate", "analyse", folder)
    assert shown.exit_code == 2 and shown.stderr.count("\n") == 1
    assert (
        "plan.json is of another version of pggan_kit, or damaged: it lacks `quantities`. Its results.csv"
        in shown.stderr
    )


def test_an_interaction_is_a_difference_of_differences() -> None:
    """Two factors whose effects add up but for 0.3, with a failed run on either side of one seed."""
    weights = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    interaction = Contrast("switch:loss", weights, "confirmatory")
    plan = make_plan(variants={name: [] for name in "abcd"})
    spread = np.random.default_rng(3).normal(0, 0.01, (4, 10))
    shifts = {"a": spread[0], "b": 0.5 + spread[1], "c": 0.2 + spread[2], "d": 1.0 + spread[3]}
    entry = compare_variants(plan, make_results(shifts), interaction, "FID", SEEDS)
    d = 0.3 + spread[0] - spread[1] - spread[2] + spread[3]
    assert entry["mean"] == pytest.approx(d.mean()) and entry["sd"] == pytest.approx(d.std(ddof=1))
    assert entry["interval"] == pytest.approx(list(stats.ttest_1samp(d, 0).confidence_interval()))
    assert entry["p"] == 2 / 2**10 and entry["n"] == 10 and entry["failures"]["p"] == 1.0
    assert entry["weights"] == weights and "variant" not in entry and "against" not in entry
    sides = [2 * BASE + shifts[one] + shifts[other] for one, other in ("ad", "bc")]
    assert entry["correlation"] == pytest.approx(np.corrcoef(*sides)[0, 1])

    # Where runs failed, ranks decide; a seed whose failures cancel speaks for neither side.
    failed = make_results(shifts, {("a", 0), ("b", 1), ("a", 2), ("b", 2)})
    entry = compare_variants(plan, failed, interaction, "FID", SEEDS)
    by_hand = [math.inf, -math.inf, 0.0, *d[3:]]
    assert entry["n"] == 7 and entry["p"] == st.run_sign_flip_test(st.rank_with_signs(by_hand)).p
    assert (entry["failures"]["variant"], entry["failures"]["against"]) == (2, 2) and entry["smallest_effect"] is None


def test_a_level_that_always_fails_is_no_interaction() -> None:
    """`b` and `d` are one level of a factor, whose runs all fail; the other factor has an effect, on `a` and `c`."""
    weights = {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}
    effects = {"switch x loss": {"factors": ["switch", "loss"], "weights": weights, "role": "confirmatory"}}
    plan = make_plan(variants={name: [] for name in "abcd"}, contrasts=[], effects=effects)
    failed = {(name, seed) for name in "bd" for seed in SEEDS}
    results = make_results({"a": 0.0, "b": 0.0, "c": 0.5 + NOISE, "d": 0.0}, failed)
    (entry,) = analyse_results(plan, results)["contrasts"]
    assert (entry["n"], entry["p"], entry["sign"], entry["verdict"]) == (0, 1.0, 0, "undecided")


def test_a_difference_below_the_margin_is_both() -> None:
    (b, _) = analyse_results(make_plan(), make_results({"a": 0.0, "b": 0.05 + NOISE / 10, "c": NOISE}))["contrasts"]
    assert b["verdict"] == "different, by less than the margin"


def test_too_few_pairs_are_undecided_and_detect_nothing() -> None:
    few = {key: value for key, value in make_results({"a": 0.0, "b": 0.3 + 10 * NOISE, "c": 0.0}).items() if key[1] < 4}
    b, c = analyse_results(make_plan(seeds=SEEDS[:4]), few)["contrasts"]
    assert b["verdict"] == "undecided" and b["n"] == 4 and b["smallest_effect"] is None and b["bootstrap"] is None
    assert c["mean"] == 0.0 and c["interval"] == [0.0, 0.0] and c["smallest_effect"] is None and c["p"] == 1.0


def test_failed_runs_rank_worst() -> None:
    """Five of ten fail, the others are a little better: by these alone the variant would win."""
    failed_runs = {("b", seed) for seed in range(5)}
    shift = np.where(np.arange(10) < 5, 0.0, -0.2) + NOISE
    b, _ = analyse_results(make_plan(), make_results({"a": 0.0, "b": shift, "c": NOISE}, failed_runs))["contrasts"]
    assert b["n"] == 5 and b["mean"] < -0.15 and b["sign_flip"]["p"] == 2 / 2**5
    ranks = [8.0] * 5 + [-1.0, -2.0, -3.0, -4.0, -5.0]
    assert b["ranks"]["p"] == pytest.approx(st.run_sign_flip_test(ranks).p) and b["p"] == b["ranks"]["p"]
    assert b["failures"] == {"variant": 5, "against": 0, "variant_alone": 5, "against_alone": 0, "p": 2 / 2**5}
    assert b["verdict"] == "undecided"
    assert b["smallest_effect"] is None, "signed ranks decide, and not the mean"


def make_precision(values: dict[str, list[Any]], failed_runs: set[tuple[str, int]] = frozenset()) -> Any:  # type: ignore[assignment]
    """Return results with these values of Precision; failed runs have none."""
    return {
        (name, seed): {
            "failed": "NaN" if (name, seed) in failed_runs else None,
            "rows": [] if (name, seed) in failed_runs else [{"metric": "Precision", "value": value, "floor": None}],
            "images": 1,
            "revision": "r",
            "hardware": "h",
        }
        for name, own in values.items()
        for seed, value in enumerate(own)
    }


@pytest.mark.parametrize("lost", ["failed", "null", "nan"])
def test_where_higher_is_better_a_run_without_a_value_ranks_lowest(lost: str) -> None:
    """One of eight has none, the others are higher: were it the highest, all eight would have one sign."""
    ours: list[Any] = [0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88]
    ours[0] = {"failed": 0.0, "null": None, "nan": math.nan}[lost]
    analysis = analyse_results(
        make_plan(primary="Precision", seeds=list(range(8)), contrasts=[["b", "a"]], variants={"a": [], "b": []}),
        make_precision({"a": [0.5] * 8, "b": ours}, {("b", 0)} if lost == "failed" else set()),
    )
    (b,) = analysis["contrasts"]
    ranks = [-8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert b["ranks"]["p"] == b["p"] == st.run_sign_flip_test(ranks).p > 2 / 2**8
    assert (b["n"], b["scale"], b["direction"], b["failures"]["variant"]) == (7, "plain", "higher", 1)
    own = analysis["variants"]["b"]
    assert (own["trials"], own["failed"], own["mean"], own["floor"]) == (8, 1, pytest.approx(0.85), None)
    assert own["iqm"] == {"value": pytest.approx((0.83 + 0.84 + 0.85 + 0.86) / 4), "interval": None}, "trimmed"


def test_a_perfect_value_is_the_best_and_is_accepted() -> None:
    """0 has no logarithm; it was refused when all trials had run, and the plan could not be changed any more."""
    results = make_results({"a": 0.0, "b": -0.2 + NOISE, "c": NOISE})
    results["b", 3]["rows"][0]["value"] = 0.0
    analysis = analyse_results(make_plan(), results)
    b = analysis["contrasts"][0]
    d = -0.2 + NOISE
    ranks = np.sign(d) * stats.rankdata(np.where(np.arange(10) == 3, np.inf, abs(d)))
    assert b["n"] == 9 and b["p"] == st.run_sign_flip_test(list(ranks)).p == 2 / 2**10 and b["failures"]["variant"] == 0
    assert analysis["variants"]["b"]["mean"] == 0.0 and b["scale"] == "log"

    # A mean of the others would be one of worse runs; what is 0 is counted.
    assert b["mean"] is None and b["estimates"]["posterior"] is None and b["without_logarithm"] == {"b": [3]}
    assert b["order"] == {"above": 0, "below": 10, "equal": 0}
    shown = render_text(analysis)
    assert "FID, b - a: 0 in 1 of b, which has no logarithm: it ranks below all other values." in shown
    assert "above in 0, below in 10 of 10" in " ".join(shown.split())


def test_equivalence_is_corrected_for_the_number_of_contrasts() -> None:
    """Four variants that differ by the margin exactly: no more than 5 % of plans may call any of them equivalent."""
    rng = np.random.default_rng(0)
    margin = 0.1
    wrong = 0
    alone = 0
    for _ in range(600):
        p = [st.run_equivalence_test(d, margin) for d in rng.normal(margin, 0.05, (4, 10)).tolist()]
        entries = [
            {"variant": str(i), "against": "a", "role": "confirmatory", "p": 1.0, "equivalence": own, "ranks": None}
            for i, own in enumerate(p)
        ]
        add_verdicts(entries)
        wrong += any(entry["verdict"] == "equivalent" for entry in entries)
        alone += min(p) < st.ALPHA
    assert alone / 600 == pytest.approx(1 - 0.95**4, abs=0.05), "without a correction"
    assert 0.02 < wrong / 600 < 0.05 + 3 * (0.05 * 0.95 / 600) ** 0.5


def test_a_failed_run_leaves_nothing_equivalent() -> None:
    shifts = {"a": 0.0, "b": NOISE / 10, "c": NOISE / 10}
    b, c = analyse_results(make_plan(), make_results(shifts, {("b", 0)}))["contrasts"]
    assert b["equivalence"] is None and b["equivalence_holm"] is None and b["verdict"] == "undecided"
    control, _ = analyse_results(make_plan(controls={"b": 10}), make_results(shifts, {("b", 0)}))["contrasts"]
    assert control["role"] == "control" and control["equivalence"] is None
    assert c["verdict"] == "equivalent"
    assert c["equivalence_holm"] == pytest.approx(2 * c["equivalence"]), "the other test counts, made or not"


def test_where_all_runs_fail_there_is_no_mean() -> None:
    failed_runs = {(name, seed) for name in "ab" for seed in SEEDS}
    analysis = analyse_results(
        make_plan(contrasts=[["b", "a"]]), make_results({"a": 0.0, "b": 0.0, "c": 0.0}, failed_runs)
    )
    (b,) = analysis["contrasts"]
    assert (b["n"], b["mean"], b["interval"], b["sign_flip"], b["correlation"]) == (0, None, None, None, None)
    assert b["p"] == 1.0 and b["failures"]["p"] == 1.0 and analysis["variants"]["a"]["mean"] is None
    assert "10:10" in render_text(analysis)


def test_metrics_without_logarithm_are_compared_as_they_are_and_never_answer() -> None:
    analysis = analyse_results(make_plan(), make_results({"a": 0.0, "b": NOISE, "c": NOISE}))
    assert [(e["metric"], e["scale"], e["role"], e["mean"]) for e in analysis["secondary"]] == [
        ("signed", "plain", "secondary", 0.0)
    ] * 2
    analysis = analyse_results(make_plan(primary="signed"), make_results({"a": 0.0, "b": 0.0, "c": 0.0}))
    assert analysis["contrasts"][0]["mean"] == 0.0 and analysis["variants"]["a"]["mean"] == -1.0
    assert "log" not in render_text(analysis).split("other metrics")[0]


def test_a_value_that_the_plan_does_not_know_is_named_and_not_compared() -> None:
    """A variant had measured it alone, and the analysis of all that was trained ended in an error."""
    results = make_results({"a": 0.0, "b": 0.3 + NOISE})
    add_rows(results, "Recall", {"b": [0.5] * 10})
    analysis = analyse_results(make_plan(**TWO), results)
    assert analysis["not_compared"] == ["Recall"] and {entry["metric"] for entry in analysis["secondary"]} == {"signed"}
    assert "not compared, since the plan states no direction and scale of them: Recall." in render_text(analysis)


def test_controls_are_not_among_what_holm_corrects() -> None:
    analysis = analyse_results(make_plan(controls={"c": 10}), make_results({"a": 0.0, "b": 0.3 + NOISE, "c": NOISE}))
    b, c = analysis["contrasts"]
    assert b["holm"] == b["p"] and c["role"] == "control" and "verdict" not in c
    assert b["smallest_effect"] == pytest.approx(st.find_smallest_effect(list(0.3 + NOISE), 0.05))


def test_a_contrast_with_an_adopted_run_is_exploratory_and_still_corrected_for() -> None:
    """Otherwise adopting a run would make the other contrast's p smaller."""
    adopted = [{"variant": "b", "seed": 3, "run": "elsewhere"}]
    results = make_results({"a": 0.0, "b": 0.3 + NOISE, "c": 0.3 + NOISE})
    b, c = analyse_results(make_plan(adopted=adopted), results)["contrasts"]
    assert b["role"] == "exploratory" and "verdict" not in b and "holm" not in b and b["adopted"] == [3]
    assert c["role"] == "confirmatory" and c["adopted"] == [] and c["holm"] == 2 * c["p"]
    assert c["equivalence_holm"] == min(1, 2 * c["equivalence"])


def test_the_table_shows_every_statistic() -> None:
    shown = render_text(
        analyse_results(make_plan(), make_results({"a": 0.0, "b": 0.3 + NOISE, "c": NOISE}, {("c", 3)}))
    )
    for words in (
        "b - a",
        "confirmatory",
        "different",
        "(ranks)",
        "1:0",
        "TOST",
        "+-0.1",
        "bootstrap (BCa) of b - a",
        "0.5",
    ):
        assert words in shown, words
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_no_row_of_a_table_is_wrapped_in_a_hundred_columns() -> None:
    """Checks, long names and failures make tables wide: their columns are stacked, and each part names its rows."""
    names = ("soft+non_saturating", "hard+non_saturating", "hard+hinge")
    plan = make_plan(
        variants={name: [] for name in names},
        contrasts=[[names[1], names[0]], [names[2], names[0]]],
        averages=["short"],
        quantities={"FID": {"direction": "lower", "scale": "log"}, "signed": {"direction": "lower", "scale": "plain"}},
    )
    results = make_results({names[0]: 0.0, names[1]: 0.3 + NOISE, names[2]: NOISE}, {(names[2], 3)})
    add_rows(results, "FID short", {name: np.exp(BASE + NOISE * place) for place, name in enumerate(names)})
    lines = render_text(analyse_results(plan, results)).splitlines()
    drawn = [line for line in lines if line[:1] in ("┃", "│", "┏", "└")]
    assert drawn and max(map(len, drawn)) <= 100
    first_cells = [line.split("│")[1].strip() for line in drawn if line.startswith("│")]
    known = {*names, *(f"{name} - {names[0]}" for name in names[1:])}
    known |= {f"signed: {name} - {names[0]} (no log)" for name in names[1:]}
    assert set(first_cells) == known, "a cell that is wrapped goes on in the next line"
    for word in ("verdict", "TOST", "detectable", "agrees"):
        assert any(word in line for line in drawn), word
    assert sum("continued" in line for line in lines) >= 2


def add_rows(results: dict[tuple[str, int], Any], metric: str, values: dict[str, Any], **more: Any) -> None:
    """Add a value to each run of variants that did not fail, and further entries to its row."""
    for name, own in values.items():
        for seed, value in enumerate(own):
            if not results[name, seed]["failed"]:
                results[name, seed]["rows"].append({"metric": metric, "value": value, "floor": None, **more})


TWO = {"variants": {"a": [], "b": []}, "contrasts": [["b", "a"]]}


def test_estimates_stand_beside_the_mean() -> None:
    results = make_results({"a": 0.0, "b": 0.3 + NOISE})
    analysis = analyse_results(make_plan(**TWO), results)
    (b,) = analysis["contrasts"]
    estimates = b["estimates"]
    d = 0.3 + NOISE
    assert estimates["iqm"]["value"] == pytest.approx(np.sort(d)[2:8].mean())
    assert estimates["improvement"]["paired"]["value"] == 0.0
    posterior = stats.t(9, d.mean(), d.std(ddof=1) / math.sqrt(10))
    assert estimates["posterior"]["worse"] == pytest.approx(posterior.sf(0.1)) and b["sign"] == 1
    profile = analysis["profiles"]["variants"]["b"]["share"]
    assert profile[0] == 1.0 and len(profile) == len(analysis["profiles"]["thresholds"]) == 20
    (signed,) = analysis["secondary"]
    assert signed["estimates"]["posterior"] is None, "the margin is the primary's"
    shown = render_text(analysis)
    saved = estimates["pairing_saved"]
    assert f"b - a, confirmatory: pairing saved {saved:.0%} of the trials; at this spread, equivalence within" in shown
    assert f"takes {estimates['pairs_for_equivalence']} pairs" in shown and "0.000 / 0.000 / 1.000" in shown


def test_where_ranks_decide_there_is_no_estimate_of_those_that_are_left() -> None:
    """Six of ten fail, and by the four others alone the variant is better for certain."""
    failed = {("b", seed) for seed in range(6)}
    analysis = analyse_results(make_plan(**TWO), make_results({"a": 0.0, "b": NOISE / 10 - 0.3}, failed))
    (b,) = analysis["contrasts"]
    estimates = b["estimates"]
    of_differences = ("iqm", "posterior", "pairing_saved", "pairs_for_equivalence", "pairs_for_difference")
    assert {estimates[name] for name in of_differences} == {None} and b["mean"] == pytest.approx(-0.3, abs=0.01)
    assert estimates["improvement"]["paired"]["value"] == 0.4, "the failed runs are worse"
    assert analysis["profiles"]["variants"]["b"]["share"][0] == 0.4
    assert "pairing saved" not in render_text(analysis)


def test_differences_of_a_small_unit_are_shown_with_their_digits() -> None:
    """Of a kernel distance around 3e-4 all differences were 0.000; logarithms keep three places."""
    results = make_results({"a": 0.0, "b": 0.3 + NOISE})
    for (name, seed), result in results.items():
        value = 3e-4 if name == "a" else 2e-4 + NOISE[seed] * 1e-3
        result["rows"] = [{"metric": "signed", "value": value, "floor": None}]
    analysis = analyse_results(make_plan(**TWO, primary="signed", margin=2e-5), results)
    d = 2e-4 + NOISE * 1e-3 - 3e-4
    low, high = stats.ttest_1samp(d, 0).confidence_interval()
    assert f"{d.mean():+.7f} [{low:+.7f}, {high:+.7f}]" in render_text(analysis)
    assert "+0.298 [" in render_text(analyse_results(make_plan(**TWO), make_results({"a": 0.0, "b": 0.298})))


@pytest.mark.parametrize(("p", "shown"), [(0.0496, "0.0496"), (0.0504, "0.0504"), (0.05, "0.05"), (0.23456, "0.23")])
def test_a_p_shows_on_which_side_of_the_level_it_is(p: float, shown: str) -> None:
    analysis = analyse_results(make_plan(**TWO), make_results({"a": 0.0, "b": 0.3 + NOISE}))
    analysis["contrasts"][0]["holm"] = p
    assert f" {shown} " in render_text(analysis)


def test_a_verdict_is_robust_where_each_average_and_metric_agrees() -> None:
    """The average turned the sign of a published result: such a one is not robust."""
    plan = make_plan(
        **TWO, averages=["short", 0.05], confirm=["FID_b"],
        quantities={name: {"direction": "lower", "scale": "log"} for name in ("FID", "FID_b", "signed")},
    )  # fmt: skip
    shifts = {
        "FID short": 0.4, "FID width_0.05": 0.2, "FID_b": 0.3, "FID_b short": 0.3, "FID_b width_0.05": 0.3
    }  # fmt: skip

    def make(**changes: float) -> Any:
        results = make_results({"a": 0.0, "b": 0.3 + NOISE})
        for metric, shift in {**shifts, **changes}.items():
            add_rows(results, metric, {"a": np.exp(BASE).tolist(), "b": np.exp(BASE + shift + NOISE).tolist()})
        return results

    def judge(**changes: float) -> Any:
        analysis = analyse_results(plan, make(**changes))
        assert {entry["metric"] for entry in analysis["secondary"]} == {"signed", "FID_b"}
        return analysis

    analysis = judge()
    (b,) = analysis["contrasts"]
    assert b["robustness"] == "robust"
    assert [(row["metric"], row["average"], row["agrees"]) for row in b["checks"]] == [
        ("FID", "short", True), ("FID", "width_0.05", True), ("FID_b", None, True), ("FID_b", "short", True),
        ("FID_b", "width_0.05", True),
    ]  # fmt: skip
    assert b["checks"][0]["mean"] == pytest.approx((0.4 + NOISE).mean()) and "posterior" not in b["checks"][0]
    assert analysis["secondary"][0]["estimates"]["posterior"] is not None, "a confirming metric has the margin"

    for changes, wanted in {
        ("FID short", -0.3): "depends on the average",
        ("FID short", 0.0): "depends on the average",
        ("FID_b", -0.3): "depends on the metric",
        ("FID_b short", -0.3): "depends on the average and the metric",
    }.items():
        analysis = judge(**{changes[0]: changes[1]})
        assert analysis["contrasts"][0]["robustness"] == wanted
        assert analysis["contrasts"][0]["verdict"] == "different", "the verdict is the plan's"
        shown = " ".join(render_text(analysis).split())
        assert wanted in shown and "NO" in shown
        assert "different," in shown, "the verdict's own row says what it depends on"

    # Where nothing is decided yet, nothing is robust, and further averages are values like others.
    withheld = analyse_results(plan, make(), decides=False)
    (b,) = withheld["contrasts"]
    assert b["role"] == "exploratory" and not {"robustness", "checks", "verdict", "holm", "equivalence_holm"} & set(b)
    assert {entry["metric"] for entry in withheld["secondary"]} == {"signed", "FID_b", *shifts}
    assert "checks" not in analyse_results(make_plan(**TWO), make_results({"a": 0.0, "b": 0.0}))["contrasts"][0]


def test_verdicts_without_a_difference_agree_whatever_their_signs() -> None:
    plan = make_plan(**TWO, averages=["short"])
    results = make_results({"a": 0.0, "b": NOISE / 4})
    add_rows(results, "FID short", {"a": np.exp(BASE).tolist(), "b": np.exp(BASE - NOISE / 4).tolist()})
    (b,) = analyse_results(plan, results)["contrasts"]
    assert b["verdict"] == "equivalent" and b["robustness"] == "robust" and b["sign"] == -b["checks"][0]["sign"] != 0
    for result in results.values():
        for row in result["rows"]:
            row["value"] = None
    (b,) = analyse_results(plan, results)["contrasts"]
    assert (b["verdict"], b["robustness"]) == ("undecided", "undecided throughout")


def test_a_failed_run_turns_the_side_of_a_check_as_ranks_do() -> None:
    """The mean of those that are left is better, and the ranks say worse."""
    plan = make_plan(**TWO, averages=["short"])
    results = make_results({"a": 0.0, "b": 0.3 + NOISE})
    values = np.exp(BASE - 0.1).tolist()
    values[:9] = [None] * 9
    add_rows(results, "FID short", {"a": np.exp(BASE).tolist(), "b": values})
    (b,) = analyse_results(plan, results)["contrasts"]
    (check,) = b["checks"]
    assert check["mean"] < 0 and check["sign"] == 1 and check["agrees"] and check["verdict"] == "different"


def test_a_quality_that_is_never_reached_is_censored_and_no_failure() -> None:
    quantity = {"direction": "lower", "scale": "log"}
    plan = make_plan(**TWO, primary="images_to_FID_2", quantities={"images_to_FID_2": quantity})
    results = make_results({"a": 0.0, "b": 0.0}, {("b", 9)})
    for result in results.values():
        result["rows"].clear()
    times = {"a": [100.0 + seed for seed in SEEDS], "b": [120.0 + 2 * seed for seed in SEEDS]}
    add_rows(results, "images_to_FID_2", times, censored=None)
    results["b", 0]["rows"][0].update(value=None, censored=500)
    analysis = analyse_results(plan, results)
    (b,) = analysis["contrasts"]
    assert b["failures"]["variant"] == 1 and b["censored"]["runs"] == {"b": 1, "a": 0} and b["n"] == 8
    logs = np.log(times["b"]) - np.log(times["a"])
    logs[[0, 9]] = math.inf
    assert b["p"] == st.run_sign_flip_test(st.rank_with_signs(logs.tolist())).p == 2 / 2**10
    reached = stats.CensoredData(uncensored=times["b"][1:9], right=[500, 500])
    assert b["censored"]["logrank"] == pytest.approx(stats.logrank(reached, times["a"]).pvalue)
    own = analysis["variants"]["b"]
    assert (own["failed"], own["censored"], own["mean"]) == (1, 1, None)
    assert own["iqm"]["value"] == pytest.approx(stats.gmean(times["b"][3:9])), "the two rank worst"
    assert analysis["variants"]["a"]["mean"] == pytest.approx(stats.gmean(times["a"]))
    shown = render_text(analysis)
    assert "images_to_FID_2, b - a: not reached by 1 of b, 0 of a; log-rank test (unpaired): p" in shown

    # A mean of those that reached it is none of all: the ranks of all pairs stand in its place.
    assert {b[name] for name in ("mean", "sd", "interval", "bootstrap", "equivalence", "smallest_effect")} == {None}
    estimates = b["estimates"]
    assert {estimates[name] for name in ("iqm", "posterior", "pairs_for_equivalence", "pairs_for_difference")} == {None}
    assert estimates["improvement"]["paired"]["value"] == 0.0
    assert b["order"] == {"above": 10, "below": 0, "equal": 0}
    assert "above in 10, below in 0" in " ".join(shown.split()) and "equivalence within" not in shown
    whole = {key: result for key, result in results.items() if key[1] not in (0, 9)}
    (b,) = analyse_results(plan, whole)["contrasts"]
    assert b["mean"] == pytest.approx(logs[1:9].mean()) and "order" not in b


@pytest.mark.parametrize("failed", [set(), {("a", 3)}, {(name, seed) for name in "ab" for seed in SEEDS}], ids=len)
def test_where_no_run_reached_a_quality_or_was_censored_there_is_no_log_rank_test(failed: set[tuple[str, int]]) -> None:
    """The curves of all of them ended without a finite value, or they failed before: each counts as failed."""
    name = "images_to_FID_2"
    plan = make_plan(**TWO, primary=name, quantities={name: {"direction": "lower", "scale": "log"}})
    results = make_results({"a": 0.0, "b": 0.0}, failed)
    for result in results.values():
        row = {"stage": 2, "images": 1, "metric": name, "value": None, "floor": None, "censored": None}
        result["rows"] = [] if result["failed"] else [row]
    analysis = analyse_results(plan, results)
    (b,) = analysis["contrasts"]
    if len(failed) < len(results):
        assert b["censored"] == {"runs": {"b": 0, "a": 0}, "logrank": None}
    assert (b["p"], b["verdict"], b["failures"]["variant"], b["failures"]["against"]) == (1.0, "undecided", 10, 10)
    assert "b - a" in render_text(analysis) and "log-rank" not in render_text(analysis)


def test_a_run_that_ended_without_a_value_is_named() -> None:
    """It trained to its end, and its curve became NaN: it counts as failed, and a reader learns why."""
    results = make_results({"a": 0.0, "b": NOISE, "c": 0.0}, {("b", 1)})
    results["b", 4]["rows"][0]["value"] = None
    results["c", 2]["rows"][0]["value"] = math.nan
    analysis = analyse_results(make_plan(), results)
    b, c = analysis["contrasts"]
    assert (b["without_value"], c["without_value"]) == ({"b": [4]}, {"c": [2]})
    assert (b["failures"]["variant"], analysis["variants"]["b"]["failed"]) == (2, 2)
    shown = render_text(analysis)
    assert "FID, b - a: b 4 ended without a finite value, and counts as failed." in shown
    assert "without_value" not in analysis["secondary"][0]


def test_runs_that_are_all_equal_differ_in_no_effect() -> None:
    """Thirds of 0.7 do not add up to exactly 0, and sign flips would test what is left of them."""
    factors = {"f": {"f0": [], "f1": ["x = 1"]}, "g": {"g0": [], "g1": ["y = 1"], "g2": ["y = 2"]}}
    design = make_factorial(factors, None, None)
    plan = make_plan(
        variants=design.variants, contrasts=[], effects=design.effects, design=design.description, primary="Precision"
    )
    row = {"stage": 2, "images": 1, "metric": "Precision", "value": 0.7, "floor": None}
    result = {"failed": None, "images": 1, "rows": [row], "revision": "r", "hardware": "h"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysis = analyse_results(plan, {(name, seed): result for name in design.variants for seed in SEEDS})
    assert {(entry["mean"], entry["p"]) for entry in analysis["contrasts"]} == {(0.0, 1.0)}
    assert {entry["verdict"] for entry in analysis["contrasts"]} == {"equivalent"}


def test_levels_and_margins_are_those_of_the_role() -> None:
    """As in a dry run: what is not corrected is detected at 0.05, and only the primary has the margin."""
    contrasts = [["b", "a"], ["d", "a"], ["c", "a"]]
    plan = make_plan(variants={name: [] for name in "abcd"}, contrasts=contrasts, controls={"c": 10})
    results = make_results({"a": 0.0, "b": 0.3 + NOISE, "c": NOISE[::-1], "d": NOISE})
    analysis = analyse_results(plan, results)
    planned = describe_contrasts(plan)
    assert [entry["role"] for entry in planned] == ["confirmatory", "confirmatory", "control"]
    for entry, dry in zip(analysis["contrasts"], planned, strict=True):
        assert entry["smallest_effect"] == pytest.approx(dry["detectable"] * entry["sd"])
    assert {entry["equivalence"] for entry in analysis["secondary"]} == {None}

    # Without verdicts nothing is corrected.
    explored = analyse_results(plan, results, decides=False)["contrasts"][0]
    assert explored["role"] == "exploratory" and "holm" not in explored
    assert explored["smallest_effect"] == pytest.approx(st.find_detectable_mean(10, 0.05) * explored["sd"])


def test_the_legend_names_the_test_of_failures() -> None:
    """Of pairs McNemar's; of effects, which have more than two variants, sign flips."""
    results = make_results({"a": 0.0, "b": 0.3, "c": 0.1}, {("b", 0)})
    pairs = render_text(analyse_results(make_plan(), results))
    assert "with McNemar's exact test" in pairs and "tested by sign flips" not in pairs
    effects = {"b and c": {"weights": {"b": 0.5, "c": 0.5, "a": -1.0}, "role": "confirmatory"}}
    shown = " ".join(render_text(analyse_results(make_plan(effects=effects, contrasts=[]), results)).split())
    assert "Of an effect those with weights above 0 : below 0, tested by sign flips." in shown
