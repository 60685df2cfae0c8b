"""The report of an ablation, from a folder as `pggan-kit ablate` leaves it."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.ablation_folders import COLUMNS, CONTRAST, VALUES, write_results
from helpers.paths import ROOT
from helpers.reporting import Page, leave_out_figures, leave_out_plots, train_pair

from pggan_kit.report import write_report
from pggan_kit.report.ablation_record import read_ablation, read_analysis
from pggan_kit.report.ablation_sections import (
    describe_measurement,
    plot_contrasts,
    plot_results,
    result_section,
    seeds_section,
    state_answer,
    tabulate_contrasts,
    tabulate_variants,
)

WITHOUT_A_NAME = {name: value for name, value in CONTRAST.items() if name != "against"}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """Return an ablation with its runs. Not to be changed."""
    folder = tmp_path_factory.mktemp("ablation")
    trained = tmp_path_factory.mktemp("trained")
    train_pair(trained)
    for variant, seed in VALUES:  # both seeds have the same run
        shutil.copytree(trained / variant, folder / "runs" / variant / str(seed))
    write_results(folder)
    return folder


def test_the_page_has_table_seeds_variants_and_the_film(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    leave_out_figures(monkeypatch)
    write_report([whole], tmp_path / "a.html", figures=tmp_path / "figures")
    page = Page(tmp_path / "a.html")
    page.require_self_contained()
    assert (tmp_path / "a.html").stat().st_size < 3_000_000
    assert "Ablation: switch" in page.texts
    assert "hard - soft +0.693 undecided <&>" in page.text
    assert "hard - soft confirmatory 2 0.6931 0.5 0.9 0.5 0.5 0.75 1.25 - - undecided" in page.text
    assert "soft variant 2 0 6 0.5734" in page.text  # sqrt(4 * 9); sd of (log 4, log 9)

    # Pictures.
    alts = page.alts
    (film,) = [alt for alt in alts if alt.startswith("Animation")]
    assert "hard, seed 0 | soft, seed 0 side by side" in film
    for variant in ("soft", "hard"):
        assert sum(f"images of {variant}, seed 0 at" in alt for alt in alts) == 3
    assert any("every seed as a thin line" in alt for alt in alts)

    # Files for a paper.
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"contrasts.tex", "variants.tex", "contrasts.pdf", "fid-of-each-seed.pdf"} <= names
    assert r"hard - soft & confirmatory & 2 & 0.6931 &" in (tmp_path / "figures/contrasts.tex").read_text()


def test_every_run_is_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    ablation = read_ablation(whole)
    assert sorted(ablation.runs) == sorted(VALUES)
    assert [run.name for run in ablation.pick_one_of_each()] == ["soft, seed 0", "hard, seed 0"]
    assert [run.name for run in ablation.pick_contrasted_pair()] == ["hard, seed 0", "soft, seed 0"]
    (group,) = seeds_section(ablation).groups
    assert {figure.caption for figure in group.figures} >= {"Loss/generator/hinge", "Loss/discriminator/hinge"}


def test_results_alone_make_a_page(results: Path) -> None:
    """Committed ablations are without runs."""
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    page.require_self_contained()
    assert len(page.images) == 2
    assert not any(alt.startswith("Animation") for alt in page.alts)


def test_failed_runs_are_counted(tmp_path: Path) -> None:
    write_results(tmp_path, (("hard", 2, "", 20, "FID", "", 1, "abc", "a CPU", 0),))
    change_plan(tmp_path, seeds=[0, 1, 2])
    ablation = read_ablation(tmp_path)
    assert ablation.final() == {"soft": {0: 4.0, 1: 9.0}, "hard": {0: 8.0, 1: 18.0}}
    assert [row[:4] for row in tabulate_variants(ablation).rows] == [
        ["soft", "variant", 2, 0],
        ["hard", "variant", 3, 1],
    ]


def change_plan(folder: Path, **changes: Any) -> None:
    """Give the plan of a folder other fields."""
    plan = json.loads((folder / "plan.json").read_text())
    (folder / "plan.json").write_text(json.dumps({**plan, **changes}))


def test_added_seeds_are_no_part_of_the_planned_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of the analysis had the means of the planned seeds alone, and the page those of all of them."""
    leave_out_plots(monkeypatch)
    more = [
        ("hard", 7, 2, 40, "FID", 800.0, 0, "abc", "a CPU", 1),
        ("soft", 7, 2, 40, "FID", 50.0, 0, "abc", "a CPU", 1),
    ]
    write_results(tmp_path, tuple(more))
    change_plan(tmp_path, exploratory=[7])
    ablation = read_ablation(tmp_path)
    assert ablation.final() == {"soft": {0: 4.0, 1: 9.0}, "hard": {0: 8.0, 1: 18.0}}
    assert [row[:5] for row in tabulate_variants(ablation).rows] == [
        ["soft", "variant", 2, 0, pytest.approx(6.0)],
        ["hard", "variant", 2, 0, pytest.approx(12.0)],
        ["soft", "added seeds", 1, 0, 50.0],
        ["hard", "added seeds", 1, 0, 800.0],
    ]
    (figure,) = plot_results(ablation)
    assert "soft: 6; hard: 12" in figure.alt

    # The analysis is older than these seeds.
    section = result_section(ablation, read_analysis(ablation))
    assert section.texts[0].startswith("UNFINISHED: the plan has seeds 7, which were added after this analysis")
    analysis = {**read_analysis(ablation), "exploratory": {"seeds": [7], "variants": []}}
    assert not any("UNFINISHED" in text for text in result_section(ablation, analysis).texts)
    change_plan(tmp_path, exploratory=[], exploratory_variants=["soft"], exploratory_contrasts=[["soft", "hard"]])
    ablation = read_ablation(tmp_path)
    first = result_section(ablation, read_analysis(ablation)).texts[0]
    assert "the plan has variants soft; contrasts soft - hard, which were added" in first


def test_a_value_of_0_is_the_best_of_logarithms_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its geometric mean is 0, as the table of the analysis has it."""
    leave_out_plots(monkeypatch)
    write_results(tmp_path, (("hard", 2, 2, 40, "FID", 0.0, 0, "abc", "a CPU", 0),))
    change_plan(tmp_path, seeds=[0, 1, 2])
    ablation = read_ablation(tmp_path)
    assert ablation.final()["hard"][2] == 0.0
    assert tabulate_variants(ablation).rows[1][2:6] == [3, 0, 0.0, None]
    texts = result_section(ablation, read_analysis(ablation)).texts
    assert any(text.startswith("1 of 3 runs of hard have a FID of 0, which has no logarithm") for text in texts)
    (figure,) = plot_results(ablation)
    assert "Geometric means of the values above 0: soft: 6; hard: 12" in figure.alt


def test_the_page_says_what_was_measured_its_floor_and_why_runs_failed(results: Path) -> None:
    plan = json.loads((results / "plan.json").read_text())
    config = (
        "train.metrics = [@metrics.FrechetDistance()]\nmetrics.FrechetDistance.features = @features.Own()\n"
        "evaluation.count = 700\nfeatures.Own.width = 3\ntrain.seed = 0\n"
    )
    more = {"base": "tiny.gin", "configs": {"soft": config}}
    (results / "plan.json").write_text(json.dumps({**plan, **more, "evaluation": ["evaluation.count = 500"]}))
    analysis = {"contrasts": [], "failed": [["hard", 2, "ended at 7x7, not at 28x28"], ["hard", 3, "NaN"]]}
    (results / "analysis.json").write_text(json.dumps(analysis))
    ablation = read_ablation(results)
    section = result_section(ablation, read_analysis(ablation))
    assert section.texts == [
        "Each run is the experiment tiny.gin with the bindings of its variant. Its values were measured with "
        "evaluation.count = 500; train.metrics = [@metrics.FrechetDistance()]; metrics.FrechetDistance.features = "
        "@features.Own(); features.Own.width = 3.",
        "Failed: hard 2: ended at 7x7, not at 28x28.",
        "Failed: hard 3: NaN.",
    ]
    variants = section.tables[0]
    assert variants.head[-1] == "noise floor" and [row[-1] for row in variants.rows] == [1.0, 1.0]

    # An evaluation that chooses metrics uses nothing of the experiment's own.
    chosen = ["train.metrics = [@metrics.SlicedWasserstein()]"]
    (results / "plan.json").write_text(json.dumps({**plan, **more, "evaluation": chosen}))
    described = describe_measurement(read_ablation(results))
    assert described.endswith("evaluation.count = 700; train.metrics = [@metrics.SlicedWasserstein()].")


def test_an_endpoint_without_logarithm(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan records its scale: values below 0 are kept, means are arithmetic; a run without a value is counted."""
    leave_out_plots(monkeypatch)
    plan = json.loads((results / "plan.json").read_text())
    quantities = {"FID": {"direction": "lower", "scale": "plain"}}
    (results / "plan.json").write_text(json.dumps({**plan, "quantities": quantities, "seeds": [0, 1, 2]}))
    table = (results / "results.csv").read_text().replace("FID,8.0,0", "FID,-8.0,0")
    (results / "results.csv").write_text(f"{table}hard,2,2,40,FID,,0,abc,a CPU,0\n")
    ablation = read_ablation(results)
    assert ablation.final()["hard"] == {0: -8.0, 1: 18.0}

    shown = tabulate_variants(ablation)
    assert shown.head[4:] == ["FID, mean", "sd", "noise floor"] and shown.rows[1][1:5] == ["variant", 3, 1, 5.0]
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    assert "paired difference in FID" in " ".join(page.alts)
    assert not any("logarithm" in alt for alt in page.alts)


def test_a_run_that_never_reached_the_quality_is_no_failure_and_leaves_no_mean(results: Path) -> None:
    change_plan(results, seeds=[0, 1, 2])
    table = (results / "results.csv").read_text().splitlines()
    lines = [f"{table[0]},censored", *(f"{line}," for line in table[1:]), "hard,2,2,40,FID,,0,abc,a CPU,0,40"]
    (results / "results.csv").write_text("\n".join(lines) + "\n")
    shown = tabulate_variants(read_ablation(results))
    assert shown.head[-2:] == ["never reached", "noise floor"]
    assert shown.rows[1][2:] == [3, 0, None, None, 1, 1.0] and shown.rows[0][2:5] == [2, 0, 6.0]
    (figure,) = plot_results(read_ablation(results))
    assert "Geometric means of the runs that reached the quality: " in figure.alt


def test_the_committed_ablation_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan is older than records of scales: all were logarithmic."""
    leave_out_plots(monkeypatch)
    committed = ROOT / "experiments" / "results" / "switch"
    assert "quantities" not in json.loads((committed / "plan.json").read_text())
    write_report([committed], tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert "FID, geometric mean" in page.text and any("log FID" in alt for alt in page.alts)


def test_a_withdrawn_answer_stands_below_its_note(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables alone are no note."""
    leave_out_plots(monkeypatch)
    table = "  switch\n┏━━━┓\n┃ a ┃\n\n┏━━━┓\n"
    (results / "table.txt").write_text(table)
    assert read_ablation(results).note == ""
    (results / "table.txt").write_text(f"WITHDRAWN: do not\nquote this.\n\n{table}")
    write_report([results], results / "a.html")
    text = Page(results / "a.html").text
    assert text.index("WITHDRAWN: do not quote this.") < text.index("Answer:")


def test_no_analysis_is_no_contrast(results: Path) -> None:
    (results / "analysis.json").unlink()
    ablation = read_ablation(results)
    assert read_analysis(ablation)["contrasts"] == []
    assert state_answer(ablation, []) == ""


def test_the_answer_stands_first_in_one_sentence(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In percent where logarithms were compared: e^0.5 is 1.649, e^0.9 is 2.460."""
    leave_out_plots(monkeypatch)
    write_report([results], results / "a.html")
    answer = (
        "Answer: whether hard differs from soft in FID is undecided "
        "(mean difference +100.0 %, 95 % interval +64.9 % to +146.0 %, 2 pairs of runs)."
    )
    text = Page(results / "a.html").text
    assert 0 < text.index(answer) < text.index("variant kind runs failed")


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"verdict": "equivalent", "interval": None}, "Answer: hard is equivalent to soft in FID."),
        ({"verdict": "different", "interval": None}, "Answer: hard differs from soft in FID."),
        ({"verdict": "unclear", "mean": None, "interval": None}, "Answer: hard against soft in FID: unclear."),
        (
            {"verdict": "different", "interval": None, "robustness": "depends on the average"},
            "Answer: hard differs from soft in FID, a verdict that depends on the average.",
        ),
        (
            {"verdict": "different", "interval": None, "robustness": "robust"},
            "Answer: hard differs from soft in FID, with each of the other averages and metrics, too.",
        ),
        ({"role": "control"}, ""),
        (
            {"verdict": "different", "interval": None, "direction": "lower", "sign": 1},
            "Answer: hard is worse than soft in FID.",
        ),
        (
            {"verdict": "different, by less than the margin", "interval": None, "direction": "higher", "sign": 1},
            "Answer: hard is better than soft in FID, by less than the margin of equivalence.",
        ),
        (
            {"verdict": "different", "interval": None, "direction": "lower", "mean": -0.1},
            "Answer: hard is better than soft in FID.",
        ),
    ],
)
def test_answers(changes: dict[str, Any], answer: str, results: Path) -> None:
    assert state_answer(read_ablation(results), [{**CONTRAST, **changes}]) == answer


RANKS = {"p": 0.008, "patterns": 256, "exact": True}
SIX_FAILED = {
    "verdict": "different",
    "direction": "lower",
    "sign": 1,
    "ranks": RANKS,
    "mean": math.log(0.7),
    "interval": [math.log(0.6), math.log(0.8)],
    "failures": {"variant": 6, "against": 0, "variant_alone": 6, "against_alone": 0, "p": 0.03},
}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        (
            {},
            "Answer: hard is worse than soft in FID, by signed ranks (failed 6:0; of the 2 pairs with values: mean "
            "difference -30.0 %, 95 % interval -40.0 % to -20.0 %).",
        ),
        (
            {"direction": "higher", "sign": -1, "mean": None},
            "Answer: hard is worse than soft in FID, by signed ranks (failed 6:0).",
        ),
        (
            {
                "mean": None,
                "interval": None,
                "failures": {**SIX_FAILED["failures"], "variant": 0},
                "censored": {"runs": {"hard": 6, "soft": 0}, "logrank": 0.01},
                "order": {"above": 6, "below": 2, "equal": 0},
            },
            "Answer: hard is worse than soft in FID, by signed ranks (not reached by 6 of hard, 0 of soft; above in 6, "
            "below in 2 of 8 pairs of runs).",
        ),
        (
            {
                "sign": -1,
                "mean": None,
                "interval": None,
                "failures": {**SIX_FAILED["failures"], "variant": 0},
                "without_logarithm": {"hard": [3]},
                "order": {"above": 0, "below": 8, "equal": 0},
            },
            "Answer: hard is better than soft in FID, by signed ranks (0 in 1 of hard; above in 0, below in 8 of 8 "
            "pairs of runs).",
        ),
    ],
)
def test_where_ranks_decide_the_answer_says_what_they_say(changes: dict[str, Any], answer: str, results: Path) -> None:
    """The pairs with values alone say the opposite."""
    contrast = {**CONTRAST, **SIX_FAILED, **changes}
    ablation = read_ablation(results)
    assert state_answer(ablation, [contrast]) == answer
    shown = tabulate_contrasts([contrast], {})
    row = dict(zip(shown.head, shown.rows[0], strict=True))
    assert row["p"] == "0.5 (ranks)" and row["failed"] == ("6:0" if "failed" in answer else "0:0")


def test_an_effect_says_on_which_side_it_is(results: Path) -> None:
    contrast = {name: value for name, value in CONTRAST.items() if name not in ("variant", "against")}
    contrast |= {"name": "f: y - x", "verdict": "different", "interval": None, "direction": "lower", "sign": -1}
    answer = "Answer: f: y - x in FID: different, on the better side."
    assert state_answer(read_ablation(results), [contrast]) == answer


def test_small_differences_keep_their_digits_in_the_description_of_the_chart(results: Path) -> None:
    contrast = {**CONTRAST, "mean": -1e-4, "interval": [-1.2e-4, -0.8e-4]}
    (figure,) = plot_contrasts(read_ablation(results), [contrast])
    assert "hard - soft (confirmatory): -0.0001, from -0.00012 to -8e-05" in figure.alt


def test_contrasts_of_more_variants_have_their_names(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    plan = json.loads((results / "plan.json").read_text())
    effects = {"switch x loss": {"weights": {"soft": 1.0, "hard": -1.0}, "role": "confirmatory"}}
    (results / "plan.json").write_text(json.dumps({**plan, "effects": effects, "contrasts": []}))
    contrast = {name: value for name, value in CONTRAST.items() if name not in ("variant", "against")}
    analysis = {"contrasts": [{**contrast, "name": "switch x loss"}]}
    (results / "analysis.json").write_text(json.dumps(analysis))
    write_report([results], results / "a.html")
    text = Page(results / "a.html").text
    assert "switch x loss confirmatory 2 0.6931" in text and "Contrasts: switch x loss." in text
    assert "Answer: switch x loss in FID: undecided (mean difference +100.0 %" in text


def test_an_answer_without_logarithm(results: Path) -> None:
    plan = json.loads((results / "plan.json").read_text())
    (results / "plan.json").write_text(json.dumps({**plan, "quantities": {"FID": {"scale": "plain"}}}))
    answer = state_answer(read_ablation(results), [CONTRAST])
    assert "(mean difference +0.6931, 95 % interval +0.5 to +0.9, 2 pairs of runs)" in answer


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("plan.json", "{", r"plan\.json is damaged"),
        ("plan.json", '{"variants": {"../x": []}, "primary": "F", "contrasts": []}', "does not name variants"),
        ("plan.json", '{"variants": {"a": []}, "primary": "F", "contrasts": [["a", "b"]]}', "does not name variants"),
        (
            "plan.json",
            '{"variants": {}, "primary": "F", "contrasts": [], "quantities": {"F": {"scale": "cubic"}}}',
            "does not name variants",
        ),
        ("plan.json", '{"variants": {}, "primary": "F", "contrasts": [], "quantities": [1]}', r"plan\.json is damaged"),
        ("results.csv", "variant,seed\na,0\n", r"results\.csv is damaged: line 1 lacks stage, images, metric"),
        (
            "results.csv",
            ",".join(COLUMNS) + "\nsoft,x,2,40,FID,1,0,a,b,0\n",
            "line 2: 'x' in the column seed is no whole",
        ),
        ("results.csv", "", "has no results yet"),
        ("analysis.json", '{"contrasts": [{"variant": "a"}]}', r"analysis\.json is damaged"),
        ("analysis.json", json.dumps({"contrasts": [WITHOUT_A_NAME]}), r"analysis\.json is damaged"),
        ("analysis.json", "[" * 100_000, r"analysis\.json is damaged"),
    ],
)
def test_damaged_files_are_refused(
    file: str,
    content: str,
    message: str,
    results: Path,
    cli: Callable[..., Result],
    refused: Callable[[Result, str], str],
) -> None:
    (results / file).write_text(content)
    refused(cli("report", results), message)


def test_one_ablation_at_a_time(
    results: Path, cli: Callable[..., Result], refused: Callable[[Result, str], str]
) -> None:
    refused(cli("report", results, results / "other"), "name one ablation, or runs")


def test_variants_may_not_be_markup(results: Path) -> None:
    markup = "<script>alert(1)<script>"
    text = (results / "plan.json").read_text().replace('"hard"', json.dumps(markup))
    (results / "plan.json").write_text(text)
    table = (results / "results.csv").read_text()
    (results / "results.csv").write_text(re.sub("^hard", markup, table, flags=re.MULTILINE))
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    page.require_self_contained()
    assert markup in page.text
