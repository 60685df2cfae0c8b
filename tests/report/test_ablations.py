"""The report of an ablation, made of a folder as `pggan-kit ablate` leaves it."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.paths import ROOT
from helpers.reporting import Page, train_pair

from pggan_kit.report import write_report
from pggan_kit.report.ablation_record import read_ablation
from pggan_kit.report.ablation_sections import contrasts_of, seeds_section, summary

VALUES = {("soft", 0): 4.0, ("soft", 1): 9.0, ("hard", 0): 8.0, ("hard", 1): 18.0}
COLUMNS = ("variant", "seed", "stage", "images", "metric", "value", "failed", "revision", "hardware", "exploratory")
CONTRAST = {
    "variant": "hard",
    "against": "soft",
    "role": "confirmatory",
    "n": 2,
    "mean": math.log(2),
    "interval": [0.5, 0.9],
    "p": 0.5,
    "holm": 0.5,
    "equivalence": 0.75,
    "smallest_effect": 1.25,
    "correlation": None,
    "verdict": "undecided",
}


def write_results(folder: Path, more: tuple[tuple[Any, ...], ...] = ()) -> None:
    """Plan, results, analysis and table; the runs are not needed."""
    plan = {
        "name": "switch",
        "variants": {"soft": ["train.seed = 0"], "hard": ["train.switch = @switches.Hard()"]},
        "seeds": [0, 1],
        "controls": {},
        "contrasts": [["hard", "soft"]],
        "primary": "FID",
        "margin": 0.1,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for (variant, seed), value in VALUES.items():
            writer.writerow([variant, seed, 2, 40, "FID", value, 0, "abc", "a CPU", 0])
            writer.writerow([variant, seed, 2, 40, "FID_floor", 1.0, 0, "abc", "a CPU", 0])
        writer.writerows(more)
    (folder / "table.txt").write_text("hard - soft  +0.693  undecided <&>\n")
    (folder / "analysis.json").write_text(json.dumps({"contrasts": [CONTRAST]}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_results(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _own_cache: None) -> Path:
    """An ablation with its runs. Not to be changed."""
    folder = tmp_path_factory.mktemp("ablation")
    trained = tmp_path_factory.mktemp("trained")
    train_pair(trained)
    for variant, seed in VALUES:  # one run stands for both seeds
        shutil.copytree(trained / variant, folder / "runs" / variant / str(seed))
    write_results(folder)
    return folder


def test_the_page_has_table_seeds_variants_and_the_film(whole: Path, tmp_path: Path) -> None:
    write_report([whole], tmp_path / "a.html", figures=tmp_path / "figures")
    page = Page(tmp_path / "a.html")
    page.require_self_contained()
    assert (tmp_path / "a.html").stat().st_size < 3_000_000
    assert "Ablation: switch" in page.texts
    assert "hard - soft +0.693 undecided <&>" in page.text
    assert "hard - soft confirmatory 2 0.6931 0.5 0.9 0.5 0.5 0.75 1.25 - undecided" in page.text
    assert "soft variant 2 0 6 0.5734" in page.text  # sqrt(4 * 9); sd of (log 4, log 9)
    alts = [image["alt"] for image in page.images]
    (film,) = [alt for alt in alts if alt.startswith("Animation")]
    assert "hard, seed 0 | soft, seed 0 side by side" in film
    for variant in ("soft", "hard"):
        assert sum(f"images of {variant}, seed 0 at" in alt for alt in alts) == 3
    assert any("every seed as a thin line" in alt for alt in alts)
    assert {"contrasts.tex", "variants.tex", "contrasts.pdf", "fid-of-each-seed.pdf"} <= {
        path.name for path in (tmp_path / "figures").iterdir()
    }
    assert r"hard - soft & confirmatory & 2 & 0.6931 &" in (tmp_path / "figures/contrasts.tex").read_text()


def test_every_run_is_read(whole: Path) -> None:
    ablation = read_ablation(whole)
    assert sorted(ablation.runs) == sorted(VALUES)
    assert [run.name for run in ablation.one_of_each()] == ["soft, seed 0", "hard, seed 0"]
    assert [run.name for run in ablation.contrasted()] == ["hard, seed 0", "soft, seed 0"]
    (group,) = seeds_section(ablation).groups
    assert {figure.caption for figure in group.figures} >= {"Loss/generator/hinge", "Loss/discriminator/hinge"}


def test_results_alone_make_a_page(results: Path) -> None:
    """As they are committed: without runs."""
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    page.require_self_contained()
    assert len(page.images) == 2
    assert not any(alt["alt"].startswith("Animation") for alt in page.images)


def test_dead_runs_are_counted_and_the_last_value_is_taken(tmp_path: Path) -> None:
    write_results(
        tmp_path,
        (
            ("hard", 2, "", 20, "FID", "", 1, "abc", "a CPU", 1),
            ("soft", 0, 1, 24, "FID", 99.0, 0, "abc", "a CPU", 0),
        ),
    )
    ablation = read_ablation(tmp_path)
    assert ablation.final() == {"soft": {0: 4.0, 1: 9.0}, "hard": {0: 8.0, 1: 18.0}}
    assert [row[:4] for row in summary(ablation).rows] == [["soft", "variant", 2, 0], ["hard", "variant", 3, 1]]


def test_an_endpoint_without_logarithm(results: Path) -> None:
    """As the plan notes its scale: values below 0 are kept, means are arithmetic; a run without a value is counted."""
    plan = json.loads((results / "plan.json").read_text())
    stated = {"FID": {"direction": "lower", "scale": "plain"}}
    (results / "plan.json").write_text(json.dumps({**plan, "quantities": stated}))
    table = (results / "results.csv").read_text().replace("FID,8.0,0", "FID,-8.0,0")
    (results / "results.csv").write_text(f"{table}hard,2,2,40,FID,,0,abc,a CPU,0\n")
    ablation = read_ablation(results)
    assert ablation.final()["hard"] == {0: -8.0, 1: 18.0}
    shown = summary(ablation)
    assert shown.head[4:] == ["FID, mean", "sd"] and shown.rows[1][1:5] == ["variant", 3, 1, 5.0]
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    assert "paired difference in FID" in " ".join(image["alt"] for image in page.images)
    assert not any("logarithm" in image["alt"] for image in page.images)


def test_the_committed_ablation_is_still_read(tmp_path: Path) -> None:
    """Its plan is from before plans noted scales: all were logarithmic."""
    committed = ROOT / "experiments" / "results" / "switch"
    assert "quantities" not in json.loads((committed / "plan.json").read_text())
    write_report([committed], tmp_path / "a.html")
    page = Page(tmp_path / "a.html")
    assert "FID, geometric mean" in page.text and any("log FID" in image["alt"] for image in page.images)


def test_no_analysis_is_no_contrast(results: Path) -> None:
    (results / "analysis.json").unlink()
    assert contrasts_of(read_ablation(results)) == []


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
        ("results.csv", "variant,seed\na,0\n", r"results\.csv is damaged: line 2 has no good stage"),
        ("results.csv", ",".join(COLUMNS) + "\nsoft,x,2,40,FID,1,0,a,b,0\n", "line 2 has no good seed or images"),
        ("results.csv", "", "has no results yet"),
        ("analysis.json", '{"contrasts": [{"variant": "a"}]}', r"analysis\.json is damaged"),
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
    evil = "<script>alert(1)<script>"
    text = (results / "plan.json").read_text().replace('"hard"', json.dumps(evil))
    (results / "plan.json").write_text(text)
    table = (results / "results.csv").read_text()
    (results / "results.csv").write_text(re.sub("^hard", evil, table, flags=re.MULTILINE))
    write_report([results], results / "a.html")
    page = Page(results / "a.html")
    page.require_self_contained()
    assert evil in page.text
