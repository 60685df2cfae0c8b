"""What was added, adopted or evaluated again stands in the report of an ablation, marked as exploratory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.ablation_folders import CONTRAST, write_results
from helpers.reporting import Page, leave_out_figures, leave_out_plots

from pggan_kit.errors import RunError
from pggan_kit.report import write_report
from pggan_kit.report.ablation_record import read_ablation
from pggan_kit.report.ablation_sections import tabulate_contrasts
from pggan_kit.report.later_analyses_section import later_analyses_section

ADDED: dict[str, Any] = {"seeds": [7], "variants": ["cosine"], "adopted": [["hard", 1, "/runs/old"]]}


def test_added_and_adopted_runs_are_named_and_rows_say_where_they_rest_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    write_results(tmp_path)
    adopted = {**CONTRAST, "role": "exploratory", "seeds": [0, 1], "adopted": [1], "weights": {"hard": 1, "soft": -1}}
    later = {**CONTRAST, "name": "cosine - soft", "seeds": [0, 7], "adopted": [], "weights": {"cosine": 1, "soft": -1}}
    (tmp_path / "analysis.json").write_text(json.dumps({"contrasts": [adopted, CONTRAST, later], "exploratory": ADDED}))
    write_report([tmp_path], tmp_path / "a.html")
    text = Page(tmp_path / "a.html").text
    assert (
        "Beside the plan: seeds 7 were added; variants cosine were added; hard 1 are adopted runs, which were trained "
        "before. What rests on them is exploratory."
    ) in text
    table = tabulate_contrasts([adopted, CONTRAST, later], ADDED)
    assert [row[-1] for row in table.rows] == ["adopted runs (seeds 1)", "", "added seeds 7; added variant cosine"]
    assert "rests on" not in tabulate_contrasts([CONTRAST], {}).head


def test_an_unfinished_ablation_says_so_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    write_results(tmp_path)
    for name in ("analysis.json", "table.txt"):
        (tmp_path / name).unlink()
    write_report([tmp_path], tmp_path / "a.html")
    text = Page(tmp_path / "a.html").text
    note = "UNFINISHED: there is no analysis yet, and no contrast has a verdict. 4 runs have results"
    assert 0 < text.index(note) < text.index("geometric mean")

    # An analysis of what has ended brings its own.
    (tmp_path / "analysis.json").write_text(json.dumps({"contrasts": [], "note": "UNFINISHED: 1 of 4 trials"}))
    write_report([tmp_path], tmp_path / "a.html")
    assert "UNFINISHED: 1 of 4 trials" in Page(tmp_path / "a.html").text


def test_later_analyses_are_listed_as_exploratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_plots(monkeypatch)
    leave_out_figures(monkeypatch)
    write_results(tmp_path)
    assert later_analyses_section(read_ablation(tmp_path)).empty
    folder = tmp_path / "analyses" / "short"
    folder.mkdir(parents=True)
    evaluated = {"evaluation": ["evaluation.count = 3"], "average": "short", "averages": [0.1], "curves": ["FID"]}
    contrast = {name: value for name, value in CONTRAST.items() if name not in ("verdict", "holm")}
    analysis = {"metric": "FID_b", "contrasts": [{**contrast, "role": "exploratory"}], "evaluated_again": evaluated}
    (folder / "analysis.json").write_text(json.dumps(analysis))
    write_report([tmp_path], tmp_path / "a.html", figures=tmp_path / "figures")
    text = Page(tmp_path / "a.html").text
    assert "all of this is exploratory, and no contrast of it has a verdict" in text
    assert "short: evaluation.count = 3; averages: short, 0.1; curves: FID." in text
    assert "short FID_b hard - soft 2 0.6931 0.5 0.9 0.5 -" in text
    assert (tmp_path / "figures" / "evaluated_again.tex").exists()

    # One of runs that failed, or have not ended, says so.
    failures = {"variant": 3, "against": 0, "variant_alone": 3, "against_alone": 0, "p": 0.25}
    analysis["contrasts"] = [{**contrast, "ranks": {"p": 0.5, "patterns": 8, "exact": True}, "failures": failures}]
    analysis["note"] = "EXPLORATORY: evaluated again. UNFINISHED: 6 of 16 trials have not ended."
    (folder / "analysis.json").write_text(json.dumps(analysis))
    section = later_analyses_section(read_ablation(tmp_path))
    assert f"short: {analysis['note']}" in section.texts
    assert section.tables[0].rows[0][-2:] == ["0.5 (ranks)", "3:0"]

    del analysis["evaluated_again"]
    (folder / "analysis.json").write_text(json.dumps(analysis))
    with pytest.raises(RunError, match=r"short/analysis\.json is damaged: it does not say what was evaluated again"):
        later_analyses_section(read_ablation(tmp_path))
