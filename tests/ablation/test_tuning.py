"""Tuned arms: a search within each variant before the comparison, which counts in the plan and is shown."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers.paths import ABLATION_PLUGIN, STUB_PLUGIN

from pggan_kit import ablation
from pggan_kit.ablation import plan_reading
from pggan_kit.errors import ConfigError, Interrupted, RunError
from pggan_kit.report.ablation_record import read_ablation
from pggan_kit.report.ablation_sections import plan_section
from pggan_kit.sweeps import trial as trials

PLUGINS = [str(STUB_PLUGIN), str(ABLATION_PLUGIN)]
RANGE = "'parameters': {'g/optimizers.Adam.lr': ('log', 1e-4, 1e-2)}"
OTHER_IMAGES = "'tuning': ['evaluation.dataset = @tune/datasets.Stub()', 'tune/datasets.Stub.n = 8']"
TUNE = f"ablate.tune = {{{RANGE}, 'trials': 2, 'seeds': (7,), 'search': 'random', {OTHER_IMAGES}}}"
SHORT = "schedule.sizes = (4, 8)"

Ablate = Callable[..., dict[str, Any]]


def test_each_variant_is_tuned_before_the_comparison(
    ablate: Ablate, cli: Callable[..., Result], no_memory_count: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    # A tuning trial is killed before its value is there: no run of the comparison has begun.
    measured: list[str] = []
    evaluate = trials.evaluate

    def be_killed_once(run: Path, **options: Any) -> Any:
        measured.append(f"{run}")
        if len(measured) == 2:
            raise SystemExit(137)
        assert "tune/datasets.Stub.n = 8" in options["bindings"]
        return evaluate(run, **options)

    monkeypatch.setattr(trials, "evaluate", be_killed_once)
    with pytest.raises(Interrupted, match="the same command continues"):
        ablate(SHORT, TUNE, "ablate.launcher = @launchers.Here()", "launchers.Here.stop_after = 2")
    assert not Path("out/runs").exists()
    said: list[str] = []
    analysis = ablate(SHORT, TUNE, said=said)
    assert len(measured) == 5, "two trials of each of two variants, one of which was measured twice"

    # The chosen values: the same budget, other seeds, and they are what the runs of the comparison have.
    assert list(analysis["tuned"]) == ["linear", "hard"]
    with open("out/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, tuned in analysis["tuned"].items():
        best = json.loads(Path(f"out/tuning/{name}/best.json").read_text())
        assert tuned == {"bindings": best["bindings"], "trials": 2, "seeds": [7]}
        (text,) = best["bindings"]
        assert {row["tuned"] for row in rows if row["variant"] == name} == {text}
        for seed in (0, 1):
            assert text in Path(f"out/runs/{name}/{seed}/config.gin").read_text()
        assert "train.seed = 7" in Path(f"out/tuning/{name}/runs/0/7/config.gin").read_text()
        assert f"tuned, {name}: {text} (2 trials on seeds 7)." in Path("out/table.txt").read_text()
    section = plan_section(read_ablation(Path("out")))
    assert section.tables[0].head[-1] == "tuned"
    assert [row[-1] for row in section.tables[0].rows] == [tuned["bindings"][0] for tuned in analysis["tuned"].values()]

    # Both variants were offered the same values, and a comparison without runs shows what was chosen.
    suggested = []
    for name in ("linear", "hard"):
        with open(f"out/tuning/{name}/trials.csv", newline="") as file:
            suggested.append([row["g/optimizers.Adam.lr"] for row in csv.DictReader(file)])
    assert suggested[0] == suggested[1] and len(set(suggested[0])) == 2
    assert ablation.analyse("out")["tuned"] == analysis["tuned"]

    # The plan counts the search, and holds it fast.
    dry_run = ["ablate", "switch.gin", "--dry-run", *(f"--plugin={file}" for file in PLUGINS), "-b", SHORT, "-b", TUNE]
    dry_run += ["-b", "ablate.seeds = (0, 1, 2, 3, 4, 5)"]
    result = cli(*dry_run, "--json")
    assert result.exit_code == 0, result.output
    costs = [(row["trial"], row["role"], row["seeds"], row["images"]) for row in json.loads(result.stdout)["trials"]]
    assert costs == [
        ("linear", "tuning", 2, 24),
        ("hard", "tuning", 2, 24),
        ("linear", "variant", 6, 24),
        ("hard", "variant", 6, 24),
    ]
    shown = cli(*dry_run)
    assert "tuning: 2 trials of each variant on seeds 7 before the comparison" in " ".join(shown.stdout.split())
    with pytest.raises(RunError, match=r"begun with another plan \(tune: linear: trials was 2 and is 3"):
        ablate(SHORT, TUNE.replace("'trials': 2", "'trials': 3"))
    with pytest.raises(RunError, match=r"a plan that tunes its variants adopts no runs"):
        ablate(SHORT, TUNE, adopt=["out/runs/linear/0"])


def test_a_plan_with_a_search_has_another_hash_and_no_trunk(ablate: Ablate) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    plain, _ = plan_reading.read_plan("switch.gin", (), PLUGINS)
    tuned, _ = plan_reading.read_plan("switch.gin", (TUNE,), PLUGINS)
    assert plain.branch == 0 and "tune" not in plain.fixed_fields
    assert tuned.branch is None and tuned.hash != plain.hash
    assert list(tuned.searches) == ["linear", "hard"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("'trials': 2", "'trials': 0"), r"ablate\.tune has an entry that is wrong: trials must be a whole number"),
        (("'seeds': (7,)", "'seeds': (7, 1)"), r"ablate\.tune has seeds of the comparison, \[1\]"),
        (("'seeds': (7,)", "'seeds': 7"), r"must have a list as its entry 'seeds', not 7"),
        (("'seeds': (7,), ", ""), r"ablate\.tune must have the entry 'seeds'"),
        (("'search': 'random'", "'serach': 'random'"), r"ablate\.tune has an entry that must be .*'search'"),
        (("'search': 'random'", "'search': 'random', 'startup': 3"), r"wrong: startup has no effect"),
        (("'search': 'random'", "'pruner': 'best'"), r"entry that is wrong: pruner must be"),
        ((RANGE, "'parameters': 3"), r"must have a dict as its entry 'parameters'"),
        ((RANGE, "'parameters': {}"), r"entry that is wrong: parameters must name at least one"),
        ((RANGE, "'parameters': {'g/optimizers.Adam.rate': ('log', 1, 2)}"), r"variant linear.*no parameter rate"),
        ((OTHER_IMAGES, "'tuning': []"), r"measures linear on the images of the comparison"),
        ((OTHER_IMAGES, "'tuning': ['evaluation.count = 5']"), r"measures linear on the images of the comparison"),
        (("g/optimizers.Adam.lr", "train.seed"), r"train\.seed is bound by the seeds|ablate\.seeds"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change: tuple[str, str], message: str, ablate: Ablate) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    text = TUNE.replace(*change)
    assert text != TUNE
    with pytest.raises(ConfigError) as caught:
        plan_reading.read_plan("switch.gin", (text,), PLUGINS)
    assert re.search(message, str(caught.value)), caught.value


def test_variants_that_differ_in_nothing_but_what_is_tuned_are_refused(ablate: Ablate) -> None:
    pytest.importorskip("optuna", reason="needs the extra sweep: make test-extras")
    # By what the search binds itself; without it the two are an ablation of rates.
    rates = (
        "ablate.variants = {'slow': ['g/optimizers.Adam.lr = 1e-4'], 'fast': ['g/optimizers.Adam.lr = 1e-2']}",
        "ablate.contrasts = [('fast', 'slow')]",
    )
    plan_reading.read_plan("switch.gin", rates, PLUGINS)
    lr = r"g/optimizers\.Adam\.lr, which is one of the parameters and has other values in each trial: leave it out"
    with pytest.raises(ConfigError, match=rf"ablate\.tune, variant slow: it binds {lr}"):
        plan_reading.read_plan("switch.gin", (*rates, TUNE), PLUGINS)
    with pytest.raises(ConfigError, match=rf"ablate\.tune, variant linear: it binds {lr}"):
        plan_reading.read_plan("switch.gin", (TUNE, "g/optimizers.Adam.lr = 1e-3"), PLUGINS)

    # By a macro that the setting takes: once the setting is tuned, nothing takes it.
    text = Path("tiny.gin").read_text()
    Path("tiny.gin").write_text(f"{text}\nRATE = 1e-3\ng/optimizers.Adam.lr = %RATE\n")
    macros = [line.replace("g/optimizers.Adam.lr", "RATE") for line in rates]
    plan_reading.read_plan("switch.gin", macros, PLUGINS)
    with pytest.raises(ConfigError, match=r"variant slow.*'RATE = 1e-4': nothing in this experiment uses RATE"):
        plan_reading.read_plan("switch.gin", (*macros, TUNE), PLUGINS)
