"""Looks of a plan: which runs each one needs, what it decides, and what is said about it; from made-up values."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.made_up_ablation import BASE, NOISE, SEEDS, make_plan, make_results
from scipy import stats

from pggan_kit.ablation import conduct, looks, plan_changes, sequential
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.adoption import adopt_runs
from pggan_kit.ablation.analysis import analyse_results, take_looks
from pggan_kit.ablation.cost import describe_cost, describe_looks
from pggan_kit.ablation.designs import make_design
from pggan_kit.ablation.error_spending import find_levels, spend_on_hypothesis
from pggan_kit.ablation.looks import Progress
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.reanalysis import analyse
from pggan_kit.ablation.settings import Ablation
from pggan_kit.ablation.table import render_text
from pggan_kit.components import Trial
from pggan_kit.errors import Interrupted, RunError, SettingError, TrainingError

Results = dict[tuple[str, int], dict[str, Any]]

WIDE = np.resize((0.2, -0.2), 10) + 0.01 * np.arange(10)
"""Differences that the first look leaves undecided, and the last one too."""

RESULTS: Results = make_results({"a": 0.0, "b": 0.3 + NOISE, "c": WIDE})
"""Variant b differs from a at the first look; c does not."""


def make_plan_with_looks(**changes: Any) -> Plan:
    return make_plan(**{"looks": [7, 8, 10], "futility": 0.0, **changes})


def count_runs(keys: list[tuple[str, int]]) -> dict[str, int]:
    return {name: sum(key[0] == name for key in keys) for name in "abc"}


def run_to_the_end(plan: Plan, results: Results) -> list[dict[str, int]]:
    """Return the numbers of runs that each look needs, if the runs that it needs are run and no others."""
    ended: Results = {}
    counts = []
    while True:
        progress = take_looks(plan, ended)
        if progress.wanted == progress.shown:
            return counts
        counts.append(count_runs(progress.wanted))
        ended = {key: results[key] for key in progress.wanted}


def test_runs_are_needed_as_long_as_a_contrast_is_undecided() -> None:
    assert run_to_the_end(make_plan_with_looks(), RESULTS) == [
        {"a": 7, "b": 7, "c": 7},
        {"a": 8, "b": 7, "c": 8},
        {"a": 10, "b": 7, "c": 10},
    ]


def test_controls_keep_their_number_of_seeds() -> None:
    """And so do the variants that they are compared with."""
    plan = make_plan_with_looks(controls={"c": 9}, contrasts=[["b", "a"], ["c", "a"]])
    assert run_to_the_end(plan, RESULTS) == [{"a": 9, "b": 7, "c": 9}]
    analysis = analyse_results(plan, {key: RESULTS[key] for key in take_looks(plan, RESULTS).wanted})
    assert [(entry["role"], len(entry["seeds"])) for entry in analysis["contrasts"]] == [
        ("confirmatory", 7),
        ("control", 9),
    ]


def test_decisions_rest_on_the_pairs_of_their_look_alone() -> None:
    """Whatever else has ended meanwhile: killed and started again, an ablation decides as before."""
    plan = make_plan_with_looks()
    whole = take_looks(plan, RESULTS)
    assert [look.decision for look in whole.looks["b - a"]] == ["different"]
    assert [look.decision for look in whole.looks["c - a"]] == ["goes on", "goes on", "undecided"]
    for name, seed in [("a", 7), ("c", 7), ("a", 9)]:
        fewer = {key: result for key, result in RESULTS.items() if key != (name, seed)}
        progress = take_looks(plan, fewer)
        taken = 1 if seed == 7 else 2
        assert progress.count == taken and (name, seed) in progress.wanted and (name, seed) not in progress.shown
        for contrast, own in progress.looks.items():
            assert own == whole.looks[contrast][:taken]
    assert take_looks(plan, {}) == Progress({"b - a": [], "c - a": []}, [], whole.wanted[: 3 * 7])


def test_the_analysis_states_each_look() -> None:
    plan = make_plan_with_looks()
    analysis = analyse_results(plan, RESULTS)
    b, c = analysis["contrasts"]
    d = 0.3 + NOISE[:7]
    assert (b["n"], b["verdict"], b["mean"]) == (7, "different", pytest.approx(d.mean()))
    (look,) = b["looks"]
    assert (look["look"], look["pairs"], look["decision"], look["level"]) == (1, 7, "different", 0.025)
    assert look["statistic"] == pytest.approx(d.mean()) and look["p"] == look["spent"] == 2 / 2**7
    assert [own["pairs"] for own in c["looks"]] == [7, 8, 10] and c["verdict"] == "undecided"
    assert c["looks"][-1]["spent"] < 0.05 and c["looks"][-1]["level"] == 0.05, "b has left its share"

    # The interval is the repeated one, and what belongs to one look only is not given.
    level = find_levels((7, 8, 10), spend_on_hypothesis("pocock", (7, 8, 10), 1, 2), 2)[0]
    wanted = stats.ttest_1samp(d, 0).confidence_interval(1 - level)
    assert b["interval"] == pytest.approx([wanted.low, wanted.high])
    naive = st.compute_t_interval(d.tolist())
    assert b["interval"][0] < naive.low and naive.high < b["interval"][1]
    assert {b[name] for name in ("holm", "equivalence_holm", "bootstrap", "smallest_effect")} == {None}

    # Other estimates take the same seeds, and say that their intervals know of one look alone.
    own = (np.exp(BASE[:7] + 0.3 + NOISE[:7]), np.exp(BASE[:7]))
    wins = np.mean(own[0][:, None] < own[1][None, :])
    assert b["estimates"]["improvement"]["unpaired"]["value"] == pytest.approx(wins)
    assert b["estimates"]["iqm"]["value"] == pytest.approx(stats.trim_mean(d, 0.25)) and b["estimates"]["naive"]

    assert [len(entry["seeds"]) for entry in analysis["secondary"]] == [7, 10]
    assert analysis["looks"]["pairs"] == [7, 8, 10] and analysis["looks"]["not_run"] == {"b": 3}
    assert analysis["looks"]["spent"] == pytest.approx(
        [0.05 * math.log(1 + (math.e - 1) * share) for share in (0.7, 0.8, 1.0)]
    )


def test_a_check_is_compared_over_the_pairs_of_the_look_that_decided_it() -> None:
    """Of two looks, the verdict takes both, and the check is decided at the first: its interval has seven pairs."""
    plan = make_plan_with_looks(
        variants={"a": [], "b": []}, contrasts=[["b", "a"]], averages=["short"], looks=[7, 10], futility=0.0
    )
    results = make_results({"a": 0.0, "b": WIDE})
    shift = 0.3 + NOISE
    for (name, seed), result in results.items():
        log = BASE[seed] + (shift[seed] if name == "b" else 0.0)
        result["rows"].append({**result["rows"][0], "metric": "FID short", "value": math.exp(log)})
    analysis = analyse_results(plan, results)
    (b,) = analysis["contrasts"]
    (check,) = b["checks"]
    assert (b["n"], b["verdict"], check["n"], check["verdict"]) == (10, "undecided", 7, "different")
    rules = looks.make_rules(plan)
    d = shift[:7]
    wanted = sequential.compute_repeated_interval(rules, 1, 7, d.mean(), d.std(ddof=1))
    assert check["interval"] == pytest.approx(list(wanted)) and check["mean"] == pytest.approx(d.mean())
    assert check["seeds"] == SEEDS[:7] and "over the pairs of its own last look" in render_text(analysis)


@pytest.mark.parametrize("failed", [{("q+s", 3), ("p+r", 3)}, {("q+s", seed) for seed in SEEDS}])
def test_looks_factors_and_averages_go_together(failed: set[tuple[str, int]]) -> None:
    """Each effect and each of its checks stops at its own look; the answers are those of each part by itself."""
    design = make_design({"x": {"p": [], "q": ["a.b = 1"]}, "y": {"r": [], "s": ["c.d = 1"]}}, None, None, {}, {})
    plan = make_plan_with_looks(
        variants=design.variants, contrasts=[], effects=design.effects, design=design.description,
        looks=[8, 9, 10], averages=["short", 0.05],
    )  # fmt: skip
    spread = np.random.default_rng(0).normal(0.0, 0.05, (4, 10))
    shifts = {"p+r": 0.0, "p+s": 0.3 + NOISE, "q+r": spread[2], "q+s": 0.3 + spread[3]}
    results = make_results(shifts, failed)
    for (name, seed), result in results.items():
        for average, shift in (("short", 0.3 * name.endswith("s")), ("width_0.05", 0.0)):
            if result["rows"]:
                value = math.exp(BASE[seed] + shift + 0.01 * spread[1, seed] * len(name))
                result["rows"].append({**result["rows"][0], "metric": f"FID {average}", "value": value})

    analysis = analyse_results(plan, results)
    entries = {entry["name"]: entry for entry in analysis["contrasts"]}
    assert set(entries) == {"x: q - p", "y: s - r", "x x y"} and entries["y: s - r"]["verdict"] == "different"
    alone = analyse_results(replace(plan, averages=[]), results)["contrasts"]
    for entry in alone:
        assert entry.items() <= entries[entry["name"]].items()
    by_metric = {}
    for metric in ("FID short", "FID width_0.05"):
        by_metric[metric] = analyse_results(replace(plan, averages=[], primary=metric), results)["contrasts"]
    for name, entry in entries.items():
        assert [check["average"] for check in entry["checks"]] == ["short", "width_0.05"]
        for check in entry["checks"]:
            metric = f"FID {check['average']}"
            (wanted,) = [each for each in by_metric[metric] if each["name"] == name]
            if check["n"] == wanted["n"]:
                assert (check["mean"], check["interval"]) == (wanted["mean"], wanted["interval"]), metric
        assert entry["robustness"] in ("robust", "undecided throughout", "depends on the average")
    render_text(analysis)


def test_notes_explain_no_column_that_is_empty() -> None:
    """With looks there are neither corrected p-values nor effects of a single look."""
    two = {"variants": {"a": [], "b": []}, "contrasts": [["b", "a"]]}
    results = make_results({"a": 0.0, "b": 0.3 + NOISE})
    for result in results.values():
        del result["rows"][1]
    shown = render_text(analyse_results(make_plan_with_looks(**two), results))
    for word in ("Holm", "detectable", "bootstrap (BCa)"):
        assert word not in shown, word
    once = render_text(analyse_results(make_plan(**two), results))
    assert "Holm: p corrected" in once and "detectable: the smallest" in once and "bootstrap (BCa)" in once


def test_the_table_shows_the_decision_of_each_look() -> None:
    lines = render_text(analyse_results(make_plan_with_looks(), RESULTS)).splitlines()
    rows = [line for line in lines if " of 3 " in line]
    assert [row.split("│")[-2].strip() for row in rows[-4:]] == ["different", "goes on", "goes on", "undecided"]
    text = "\n".join(lines)
    assert "its interval is the repeated one" in text and "its other estimates are naive" in text
    assert "planned and not run, since no look needed them: 3 of b" in text
    assert "looks" not in render_text(analyse_results(make_plan(), RESULTS))


@pytest.mark.parametrize("failed", [{("b", 2)}, {("b", 2), ("a", 2)}, {("a", 9)}])
def test_failed_runs_rank_worst_at_the_looks_that_have_them(failed: set[tuple[str, int]]) -> None:
    plan = make_plan_with_looks(contrasts=[["b", "a"]], looks=[8, 10], spending="obrien_fleming")
    shift = 0.004 + NOISE
    progress = take_looks(plan, make_results({"a": 0.0, "b": shift, "c": 0.0}, failed))
    for look in progress.looks["b - a"]:
        own = [seed for seed in SEEDS[: look.pairs]]
        assert look.ranks == bool({seed for _, seed in failed} & set(own))
        d = shift[: look.pairs].copy()
        for seed in own:
            signs = (("b", seed) in failed) - (("a", seed) in failed)
            if ("b", seed) in failed or ("a", seed) in failed:
                d[seed] = math.inf * signs if signs else 0.0
        scores = st.rank_with_signs(d.tolist()) if look.ranks else d.tolist()
        assert look.p == st.run_sign_flip_test(scores).p
        assert (look.equivalence is None) == look.ranks


def test_one_look_gives_the_verdicts_of_a_plan_without_looks() -> None:
    """The machinery, with a single look, decides as Holm's correction does."""
    rng = np.random.default_rng(4)
    verdicts = set()
    for _ in range(12):
        shifts = {"a": 0.0, "b": rng.normal(0.06, 0.08, 10), "c": rng.normal(0, 0.08, 10)}
        results = make_results(shifts)
        entries = analyse_results(make_plan(), results)["contrasts"]
        progress = take_looks(make_plan(looks=[10]), results)
        for entry in entries:
            (look,) = progress.looks[entry["name"]]
            assert (look.verdict, look.p, look.equivalence) == (entry["verdict"], entry["p"], entry["equivalence"])
            verdicts.add(look.verdict)
    assert len(verdicts) >= 3


def test_a_look_is_described_without_any_estimate() -> None:
    plan = make_plan_with_looks()
    progress = take_looks(plan, RESULTS)
    assert looks.describe_look(plan, progress, 1) == "look 1 of 3, 7 pairs: b - a: different; c - a: goes on"
    assert looks.describe_look(plan, progress, 3) == "look 3 of 3, 10 pairs: c - a: undecided"


def test_a_dry_run_shows_error_effects_and_expected_runs() -> None:
    plan = make_plan_with_looks(contrasts=[["b", "a"]], variants={"a": [], "b": []}, futility=0.1)
    cost = describe_cost(plan, [])
    assert [row["pairs"] for row in cost["looks"]] == [7, 8, 10]
    assert cost["looks"][-1]["spent"] == 0.05 and cost["looks"][-1]["detectable"] == cost["detectable"]
    assert cost["looks"][0]["detectable"] == st.find_detectable_mean(7, cost["looks"][0]["spent"])
    none, effect, twice = cost["expected"]
    assert none["mean"] == 0.0 and twice["mean"] == 2 * effect["mean"] == 2 * cost["detectable"]
    assert 14 <= twice["runs"] < effect["runs"] <= 20 and none["runs"] < 20
    stops = sequential.expect_stops(looks.make_rules(plan), effect["mean"])
    assert effect["runs"] == pytest.approx(2 * np.dot(stops, [7, 8, 10]))
    shown = describe_looks(plan)
    assert "7 pairs (3.95%, " in shown and f"{effect['runs']:.0f} at {effect['mean']:.2g}" in shown
    assert "by the mean of all confirmatory contrasts in standard deviations: " in shown
    assert "expected runs, of 20" in shown and "looks" not in describe_cost(make_plan(), [])


def test_more_contrasts_of_a_variant_need_more_of_its_runs() -> None:
    one = make_plan_with_looks(contrasts=[["b", "a"]], controls={"c": 4}, variants={"a": [], "b": [], "c": []})
    two = make_plan_with_looks()
    few = looks.expect_runs(one, 2.0)
    assert 14 + 4 <= few < 20 + 4
    stops = np.array(sequential.expect_stops(looks.make_rules(two), 2.0))
    pairs = np.array([7, 8, 10])
    both = np.diff(np.cumsum([0.0, *stops]) ** 2)
    assert looks.expect_runs(two, 2.0) == pytest.approx(2 * stops @ pairs + both @ pairs)


class Writes:
    """A launcher whose trials end at once, with the results of `RESULTS`.

    Args:
        stop_after: Number of trials after which it is interrupted.
        fails: Name of a trial that does not end.
    """

    def __init__(self, stop_after: int | None = None, fails: str = "") -> None:
        self.stop_after = stop_after
        self.fails = fails
        self.launched: list[str] = []

    def launch(self, launched: Sequence[Trial], ended: Callable[[Trial, int], None] | None = None) -> list[int]:
        assert launched, "a launcher may connect to a cluster, for which nothing to run is no reason"
        for trial in launched:
            if len(self.launched) == self.stop_after:
                raise KeyboardInterrupt
            self.launched.append(trial.name)
            if trial.name != self.fails:
                name, seed = trial.name.split()
                result = RESULTS.get((name, int(seed)), {**RESULTS["a", 0], "rows": []})
                folder = trials.locate_trial(Path("out"), name, int(seed))
                folder.mkdir(parents=True)
                (folder / trials.RESULT).write_text(json.dumps(result))
            if ended is not None:
                ended(trial, int(trial.name == self.fails))
        return []


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
def test_an_ablation_runs_what_its_looks_need_and_says_what_they_decide() -> None:
    plan = make_plan_with_looks(shared=["a", "c"], branch=0)
    launcher = Writes()
    said: list[str] = []
    analysis = conduct.run_ablation(plan, launcher, Path("out"), said.append)
    assert analysis == analyse_results(plan, {key: RESULTS[key] for key in take_looks(plan, RESULTS).wanted})
    assert json.loads(Path("out/analysis.json").read_text()) == json.loads(json.dumps(analysis))

    # Trunks too are run only for the seeds that are needed.
    first = [f"trunk {seed}" for seed in range(7)] + [f"{name} {seed}" for seed in range(7) for name in "abc"]
    second = ["trunk 7", "a 7", "c 7"]
    assert launcher.launched == [*first, *second, "trunk 8", "trunk 9", "a 8", "c 8", "a 9", "c 9"]
    assert [line for line in said if "look" in line] == [
        "look 1 of 3, 7 pairs: b - a: different; c - a: goes on",
        "look 2 of 3, 8 pairs: c - a: goes on",
        "look 3 of 3, 10 pairs: c - a: undecided",
    ]
    assert said[7] == "1/21 a 0: done" and said[-2] == "27/27 c 9: done"
    rows = read_rows()
    assert {(row["variant"], int(row["seed"])) for row in rows} == set(take_looks(plan, RESULTS).wanted)

    # Once it has ended, nothing is launched any more.
    again = Writes()
    assert conduct.run_ablation(plan, again, Path("out"), [].append) == analysis
    assert again.launched == []


def read_rows() -> list[dict[str, str]]:
    with open("out/results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("stop_after", [5, 21, 22], ids=["in the first look", "between looks", "in the second look"])
def test_stopped_and_started_again_it_decides_the_same(stop_after: int) -> None:
    plan = make_plan_with_looks()
    stopped = Writes(stop_after)
    with pytest.raises(Interrupted):
        conduct.run_ablation(plan, stopped, Path("out"), [].append)
    assert not Path("out/analysis.json").exists() and not Path("out/results.csv").exists()
    launcher = Writes()
    analysis = conduct.run_ablation(plan, launcher, Path("out"), [].append)
    assert analysis == analyse_results(plan, {key: RESULTS[key] for key in take_looks(plan, RESULTS).wanted})
    assert len({*stopped.launched, *launcher.launched}) == stop_after + len(launcher.launched) == 27


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("fails", "shown"), [("b 3", 0), ("c 9", 8)])
def test_before_a_look_is_due_its_values_are_not_shown(fails: str, shown: int) -> None:
    """Where a trial cannot end, `results.csv` has the pairs of the looks that were taken, and nothing else."""
    plan = make_plan_with_looks()
    with pytest.raises(TrainingError, match=f"1 of (21|27) trials have not ended, among them {fails}: see"):
        conduct.run_ablation(plan, Writes(fails=fails), Path("out"), [].append)
    assert {int(row["seed"]) for row in read_rows()} == set(range(shown))
    if shown:
        analysis = analyse(Path("out"))
        assert {entry["n"] for entry in analysis["contrasts"]} == {7, shown} and analysis["unfinished"] == [["c", 9]]
        assert not any("verdict" in entry for entry in analysis["contrasts"])
    else:
        with pytest.raises(RunError, match=r"^out has no results yet, or none that may be looked at: continue it"):
            analyse(Path("out"))
    assert not Path("out/analysis.json").exists() and not Path("out/table.txt").exists()
    conduct.run_ablation(plan, Writes(), Path("out"), [].append)
    assert len({row["seed"] for row in read_rows()}) == 10


@pytest.mark.usefixtures("elsewhere")
def test_seeds_cannot_be_added_to_looks() -> None:
    """They would be a further look, at an error that nobody planned."""
    plan = make_plan_with_looks()
    plans.write_plan(plan, Path("out"))
    more = dataclasses.replace(plan, seeds=list(range(11)), looks=[7, 8, 11])
    with pytest.raises(RunError, match=r"out/plan\.json: seeds \[10\] cannot be added: its looks decide when to stop"):
        plan_changes.compare_with_fixed(more, Path("out"))
    with pytest.raises(RunError, match=r"looks was \[7, 8, 10\] and is \[8, 10\]"):
        plan_changes.compare_with_fixed(dataclasses.replace(plan, looks=[8, 10]), Path("out"))
    other = dataclasses.replace(plan, exploratory_contrasts=[["c", "b"]])
    with pytest.raises(RunError, match=r"contrasts \[\['c', 'b'\]\] cannot be added: its looks decide when to stop"):
        plan_changes.compare_with_fixed(other, Path("out"))
    with pytest.raises(RunError, match=r"^--adopt: a plan with looks adopts no runs"):
        adopt_runs(plan, Path("out"), [Path("run")], [])


SETTINGS: dict[str, Any] = {
    "base": "base.gin",
    "variants": {"a": [], "b": []},
    "seeds": tuple(range(20)),
    "contrasts": [("b", "a")],
    "primary": "FID",
    "margin": 0.1,
    "launcher": Writes(),
}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"looks": (8, 8, 20)}, r"must be numbers of pairs, each above the one before it, not \[8, 8, 20\]"),
    ({"looks": (14, 8, 20)}, r"must be numbers of pairs, each above"),
    ({"looks": (0, 20)}, r"must be numbers of pairs, each above"),
    ({"looks": (8, 14)}, r"must end with 20, the number of seeds, not with 14: the last look has all pairs"),
    ({"looks": (8, 24)}, r"must end with 20, the number of seeds, not with 24"),
    (
        {"looks": (6, 20)},
        r"begins with 6 pairs, which cannot show a difference: of 1 confirmatory contrast, each may "
        r"spend 0\.021 of the error there, and the p of 6 pairs is at least 0\.031\. Begin with 7 pairs$",
    ),
    (
        {"looks": (8, 20), "spending": "obrien_fleming"},
        r"cannot show a difference: .* spend 0\.00079 .*\. Begin with 10 "
        r"pairs, or spend more at early looks \(ablate\.spending = 'pocock'\)",
    ),
    ({"looks": (8, 20), "controls": {"b": 4}}, r"needs a confirmatory contrast to decide, and all contrasts have a"),
    ({"looks": (8, 20), "variants": {"a": [], "b": [], "c": []}}, r"would never train c: no contrast needs its runs"),
    ({"looks": (8, 20), "spending": "pokock"}, r"spending must be 'pocock' or 'obrien_fleming', not 'pokock'"),
    ({"looks": (8, 20), "futility": 1.5}, r"futility must be in \[0, 1\], and is 1\.5"),
    ({"spending": "obrien_fleming"}, r"spending has no effect without two or more looks: bind ablate\.looks too"),
    ({"looks": (20,), "futility": 0.2}, r"futility has no effect without two or more looks"),
]


@pytest.mark.parametrize(("changes", "complaint"), WRONG, ids=[str(changes) for changes, _ in WRONG])
def test_wrong_looks_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        Ablation(**{**SETTINGS, **changes})


def test_where_all_seeds_are_too_few_no_look_is_blamed() -> None:
    settings = Ablation(**{**SETTINGS, "seeds": range(5), "looks": (3, 5)})
    with pytest.raises(SettingError, match="seeds must be at least 6 for 1 confirmatory contrast, and are 5"):
        settings.require_enough_seeds()


def test_the_looks_of_the_issue_are_accepted() -> None:
    for changes in ({"looks": (8, 14, 20)}, {"looks": (11, 20), "spending": "obrien_fleming"}, {"looks": (20,)}):
        assert Ablation(**{**SETTINGS, **changes}).looks == changes["looks"]


def test_looks_are_fixed_by_the_hash_and_their_absence_changes_none() -> None:
    plan = make_plan()
    assert not {"looks", "spending", "futility"} & set(plan.fixed_fields)
    hashes = {plan.hash}
    for changes in ({"looks": [8, 10]}, {"looks": [8, 10], "spending": "obrien_fleming"}, {"futility": 0.2}):
        hashes.add(dataclasses.replace(plan, **changes).hash)
    assert len(hashes) == 4


def test_an_interaction_is_looked_at_as_a_pair_is() -> None:
    """All variants of an effect are trained until it is decided."""
    weights = {"b": 1.0, "a": -0.5, "c": -0.5}
    plan = make_plan_with_looks(contrasts=[], effects={"b x c": {"weights": weights, "role": "confirmatory"}})
    assert run_to_the_end(plan, RESULTS)[0] == {"a": 7, "b": 7, "c": 7}
    (entry,) = analyse_results(plan, RESULTS)["contrasts"]
    d = 0.3 + NOISE - WIDE / 2
    assert [look["statistic"] for look in entry["looks"]] == pytest.approx(
        [abs(d[: look["pairs"]].mean()) for look in entry["looks"]]
    )
    assert entry["verdict"] == "different"
