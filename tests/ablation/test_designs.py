"""Designs: which variants they make, what their contrasts estimate, and what a fraction cannot tell apart."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import STUB
from helpers.ablation_plugin import SWITCH
from helpers.paths import ABLATION_PLUGIN
from rich.console import Console

from pggan_kit import ablation
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import plan_reading
from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.cost import build_contrast_table, describe_contrasts
from pggan_kit.ablation.designs import Design, list_design_notes, make_design
from pggan_kit.errors import RunError, SettingError, UserError

PLUGINS = [str(STUB), str(ABLATION_PLUGIN)]
LETTERS = "abcdefghij"


def make_factors(count: int) -> dict[str, dict[str, list[str]]]:
    """Return two-level factors a, b, c ... whose levels are called a0, a1, b0 ..."""
    return {name: {f"{name}0": [], f"{name}1": [f"{name}.x = 1"]} for name in LETTERS[:count]}


def make_fraction(count: int, resolution: str | None, effects: list[str] | None = None) -> Design:
    return make_design(make_factors(count), resolution, effects, {}, {})


def read_columns(design: Design) -> dict[str, np.ndarray]:
    """Return the column of each factor, with -1 at the first level and 1 at the second, in the order of variants."""
    levels = design.description["levels"]
    return {
        factor: np.array([2 * int(levels[name][factor][1:]) - 1 for name in design.variants])
        for factor in design.description["factors"]
    }


def multiply(columns: dict[str, np.ndarray], factors: Iterable[str]) -> np.ndarray:
    return np.prod([columns[factor] for factor in factors], axis=0)


PUBLISHED = {
    (3, "III"): (4, "III"),
    (4, "III"): (8, "IV"),
    (4, "IV"): (8, "IV"),
    (5, "III"): (8, "III"),
    (5, "IV"): (16, "V"),
    (5, "V"): (16, "V"),
    (6, "III"): (8, "III"),
    (6, "IV"): (16, "IV"),
    (6, "V"): (32, "VI"),
    (7, "III"): (8, "III"),
    (7, "IV"): (16, "IV"),
    (7, "V"): (64, "VII"),
    (8, "III"): (16, "IV"),
    (8, "V"): (64, "V"),
    (9, "III"): (16, "III"),
    (9, "IV"): (32, "IV"),
    (9, "V"): (128, "VI"),
    (10, "III"): (16, "III"),
    (10, "IV"): (32, "IV"),
    (10, "V"): (128, "V"),
}
"""Runs and resolution of the smallest fractions: Box, Hunter and Hunter 2005, table 6.22."""


@pytest.mark.parametrize(("count", "resolution"), PUBLISHED)
def test_a_fraction_is_as_small_as_the_textbook_says(count: int, resolution: str) -> None:
    """Resolution and aliases are found again from the columns of -1 and 1 alone."""
    design = make_fraction(count, resolution)
    runs, reached = PUBLISHED[count, resolution]
    assert (len(design.variants), design.description["resolution"]) == (runs, reached)
    assert design.description["runs"] == runs and design.description["full_runs"] == 2**count
    assert "+".join(f"{name}0" for name in LETTERS[:count]) in design.variants, "the base is one of them"

    # The columns are balanced, and the shortest product of columns that is constant gives the resolution.
    columns = read_columns(design)
    assert all(column.sum() == 0 for column in columns.values())
    shortest = next(
        size
        for size in range(1, count + 1)
        for members in combinations(columns, size)
        if abs(multiply(columns, members).sum()) == runs
    )
    assert shortest == {"III": 3, "IV": 4, "V": 5, "VI": 6, "VII": 7}[reached]
    for factor, parents in design.description["generators"].items():
        sign = -1 if parents.startswith("-") else 1
        assert (columns[factor] == sign * multiply(columns, parents.removeprefix("-").split(" x "))).all()

    # Effects of at most two factors that have one column, up to its sign, are aliases of each other.
    effects = {(factor,): column for factor, column in columns.items()}
    effects |= {pair: multiply(columns, pair) for pair in combinations(columns, 2)}
    wanted = set()
    for (one, own), (other, others) in combinations(effects.items(), 2):
        if abs(own @ others) == runs:
            sign = "" if own @ others > 0 else "-"
            wanted.add((frozenset({" x ".join(one), " x ".join(other)}), sign))
    found = set()
    for chain in design.description["aliases"]:
        for one, other in combinations(chain, 2):
            sign = "-" if one.startswith("-") != other.startswith("-") else ""
            found.add((frozenset({one.removeprefix("-"), other.removeprefix("-")}), sign))
    assert found == wanted


def test_effects_of_a_fraction_are_those_of_the_cells() -> None:
    """Cells that add up from known effects give these effects back, but for what is aliased."""
    design = make_fraction(4, "IV")
    columns = read_columns(design)
    cells = 3.0 + 0.5 * columns["a"] - 0.25 * columns["d"] + 0.125 * columns["a"] * columns["b"]
    values = dict(zip(design.variants, cells, strict=True))
    estimates = {
        name: sum(weight * values[variant] for variant, weight in effect["weights"].items())
        for name, effect in design.effects.items()
    }
    assert estimates == pytest.approx({"a: a1 - a0": 1.0, "b: b1 - b0": 0.0, "c: c1 - c0": 0.0, "d: d1 - d0": -0.5})
    assert design.description["aliases"] == [["a x b", "c x d"], ["a x c", "b x d"], ["a x d", "b x c"]]
    assert {effect["role"] for effect in design.effects.values()} == {"confirmatory"}


THREE_BY_TWO = {
    "switch": {"soft": [], "hard": ["s.x = 1"], "cosine": ["s.x = 2", "s.y = 1"]},
    "loss": {"wgan": [], "hinge": ["l.x = 1"]},
}


def test_effects_of_more_levels_are_differences_from_the_first() -> None:
    design = make_design(THREE_BY_TWO, None, None, {}, {})
    names = ["soft+wgan", "soft+hinge", "hard+wgan", "hard+hinge", "cosine+wgan", "cosine+hinge"]
    assert list(design.variants) == names and design.variants["cosine+hinge"] == ["s.x = 2", "s.y = 1", "l.x = 1"]
    cells = np.random.default_rng(0).normal(size=(3, 2))
    values = dict(zip(names, cells.ravel(), strict=True))
    estimates = {
        name: sum(weight * values[variant] for variant, weight in effect["weights"].items())
        for name, effect in design.effects.items()
    }
    switch = cells.mean(1)
    loss = cells.mean(0)
    assert estimates == pytest.approx(
        {
            "switch: hard - soft": switch[1] - switch[0],
            "switch: cosine - soft": switch[2] - switch[0],
            "loss: hinge - wgan": loss[1] - loss[0],
            "switch x loss: hard, hinge": (cells[1, 1] - cells[0, 1]) - (cells[1, 0] - cells[0, 0]),
            "switch x loss: cosine, hinge": (cells[2, 1] - cells[0, 1]) - (cells[2, 0] - cells[0, 0]),
        }
    )
    assert design.effects["switch x loss: hard, hinge"]["factors"] == ["switch", "loss"]
    assert len(design.effects["switch: hard - soft"]["weights"]) == 4, "the third level takes no part"


def test_the_confirmatory_effects_may_be_named() -> None:
    """The others are computed without a verdict; an interaction of three factors is made if it is asked for."""
    design = make_fraction(3, None, ["b", "a x b x c"])
    roles = {name: effect["role"] for name, effect in design.effects.items()}
    assert [name for name, role in roles.items() if role == "confirmatory"] == ["b: b1 - b0", "a x b x c"]
    assert sorted(set(roles) - {"b: b1 - b0", "a x b x c"}) == ["a x b", "a x c", "a: a1 - a0", "b x c", "c: c1 - c0"]
    (ab,) = make_fraction(2, None, ["b x a"]).effects["a x b"]["weights"].items() & {("a1+b1", 1.0)}
    assert ab and design.effects["a x b x c"]["weights"]["a1+b1+c1"] == 1.0
    assert make_fraction(5, "V", ["a x b"]).effects["a x b"]["weights"]["a1+b1+c1+d1+e0"] == 4 / 16


def test_changes_are_left_out_or_added_one_at_a_time() -> None:
    changes = {"growing": ["g.x = 1"], "stddev": ["d.x = 1", "d.y = 2"], "pixel": ["p.x = 1"]}
    left_out = make_design({}, None, None, changes, {})
    assert left_out.variants == {
        "all": ["g.x = 1", "d.x = 1", "d.y = 2", "p.x = 1"],
        "without_growing": ["d.x = 1", "d.y = 2", "p.x = 1"],
        "without_stddev": ["g.x = 1", "p.x = 1"],
        "without_pixel": ["g.x = 1", "d.x = 1", "d.y = 2"],
    }
    assert left_out.pairs == [(name, "all") for name in list(left_out.variants)[1:]]
    added = make_design({}, None, None, {}, changes)
    assert added.variants == {"none": [], **{f"with_{name}": texts for name, texts in changes.items()}}
    assert added.pairs == [(name, "none") for name in list(added.variants)[1:]]
    both = make_design({}, None, None, changes, changes)
    assert both.variants == {**left_out.variants, **added.variants} and both.pairs == left_out.pairs + added.pairs
    assert both.description["baselines"] == ["all", "none"]
    assert both.description["changed"]["without_stddev"] == ["growing", "pixel"]
    assert list_design_notes(both.description) == ["changes one at a time: growing, stddev, pixel"]


def write_ablation(*lines: str) -> None:
    """Write `factors.gin`: the ablation of `SWITCH` without its variants and contrasts, and these lines."""
    kept = [line for line in SWITCH.splitlines() if not line.startswith(("ablate.variants", "ablate.contrasts"))]
    Path("factors.gin").write_text("\n".join([*kept, *lines, ""]))


SWITCHES = "{'soft': [], 'hard': ['train.switch = @switches.Hard()', 'switches.Hard.fade_reals = True']}"
REALS = "{'faded': [], 'sharp': ['train.fade_reals = False']}"
FACTORS = f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {REALS}}}"
CHANGES = "{'slow': ['optimizers.Adam.lr = 1e-4'], 'hard': ['train.switch = @switches.Hard()']}"

WRONG = {
    f"ablate.factors = {{'switch': {SWITCHES}}}": r"ablate\.factors must name at least two; bind the levels of switch",
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'faded': []}}}}": (
        r"ablate\.factors must give each factor at least two levels, and gives reals 1$"
    ),
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'faded': [], 'a+b': []}}}}": (
        r"ablate\.factors gives variants their names: 'a\+b' must begin with a letter or digit, and go on"
    ),
    f"ablate.factors = {{'the switch': {SWITCHES}, 'reals': {REALS}}}": r"ablate\.factors .*: 'the switch' must begin",
    f"ablate.factors = {{'switch': {SWITCHES}, 'again': {{'no': [], 'yes': ['train.switch = @switches.Cosine()']}}}}": (
        r"ablate\.factors must bind each parameter in one place: switch and again both bind train\.switch, so"
    ),
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'faded': [], 'same': []}}}}": (
        r"ablate\.factors: soft\+faded and soft\+same are the same experiment"
    ),
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'faded': [], 'sharp': ['train.fade_real = False']}}}}": (
        r"variant soft\+sharp of ablate\.factors: .*did you mean fade_reals"
    ),
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'faded': [], 'sharp': ['train.fade_reals']}}}}": (
        r"reals of ablate\.factors"
    ),
    "ablate.factors = {'switch': 3}": r"ablate\.factors must be a dict",
    f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {{'no': [], '{60 * 'x'}': ['train.fade_reals = False']}}}}": (
        r"ablate\.factors names folders: 'soft\+x+' must have at most 60 characters, and has 65$"
    ),
    "ablate.leave_one_out = {'Slow': ['optimizers.Adam.lr = 1e-4'], 'slow': ['train.tf32 = True']}": (
        r"ablate\.leave_one_out names folders: 'without_Slow' and 'without_slow' differ in case alone"
    ),
    f"{FACTORS}\nablate.variants = {{'HARD+sharp': []}}": (
        r"ablate\.variants names folders: 'hard\+sharp' and 'HARD\+sharp' differ in case alone"
    ),
    f"{FACTORS}\nablate.resolution = 'VI'": r"ablate\.resolution must be 'III', 'IV' or 'V'|must be one of",
    f"{FACTORS}\nablate.resolution = 3": r"ablate\.resolution must be a (text|string)",
    f"{FACTORS}\nablate.resolution = 'III'": r"ablate\.resolution III of 2 factors takes all 4 combinations: leave it",
    f"{FACTORS}\nablate.effects = ['swich']": (
        r"ablate\.effects names 'swich', which is not a factor.*did you mean switch.*, and an interaction is written "
        r"'switch x reals'"
    ),
    f"{FACTORS}\nablate.effects = ['switch x switch']": r"ablate\.effects names a factor twice in 'switch x switch'",
    f"{FACTORS}\nablate.effects = ['switch', 'switch']": r"ablate\.effects must name at least one effect, each once",
    f"{FACTORS}\nablate.effects = []": r"ablate\.effects must name at least one effect, each once, not \[\]",
    f"{FACTORS}\nablate.effects = 'switch'": r"ablate\.effects must be (None or )?a list",
    f"{FACTORS}\nablate.add_one_in = {CHANGES}": r"ablate\.factors cannot be combined with `leave_one_out` and",
    f"{FACTORS}\nablate.variants = {{'hard+sharp': []}}": r"ablate\.variants names hard\+sharp, which is a variant of",
    f"{FACTORS}\nablate.contrasts = [('hard', 'soft')]": r"ablate\.contrasts names 'hard', which is not a variant",
    f"ablate.leave_one_out = {CHANGES}\nablate.contrasts = [('without_slow', 'all')]": (
        r"ablate\.contrasts must compare two different variants, each pair once, not \('without_slow', 'all'\)"
    ),
    f"ablate.add_one_in = {CHANGES}\nablate.effects = ['slow']": r"ablate\.effects needs `factors`, and there are none",
    f"ablate.add_one_in = {CHANGES}\nablate.resolution = 'V'": r"ablate\.resolution needs `factors`, and there are",
    "ablate.leave_one_out = {'slow': ['optimizers.Adam.lr = 1e-4']}": (
        r"ablate\.leave_one_out must name at least two changes; bind slow as one of `variants`"
    ),
    "ablate.add_one_in = {'a b': ['optimizers.Adam.lr = 1e-4'], 'c': ['train.fade_reals = False']}": (
        r"ablate\.add_one_in gives variants their names: 'a b' must begin"
    ),
    "ablate.add_one_in = {'a': ['optimizers.Adam.lr = 1e-4'], 'b': ['optimizers.Adam.lr = 1e-3']}": (
        r"ablate\.add_one_in must bind each parameter in one place: a and b both bind optimizers\.Adam\.lr"
    ),
    f"ablate.add_one_in = {CHANGES}\nablate.leave_one_out = {CHANGES.replace('1e-4', '1e-5')}": (
        r"ablate\.add_one_in must have the changes of `leave_one_out`, if both are bound"
    ),
    "ablate.leave_one_out = ['slow']": r"ablate\.leave_one_out must be a dict",
    "ablate.bindings = []": r"ablate: variants must name at least two, not \[\]",
}


@pytest.mark.parametrize("lines", WRONG)
def test_a_wrong_design_is_refused(lines: str, tiny: Callable[..., str]) -> None:
    tiny()
    write_ablation(lines)
    with pytest.raises(UserError, match=WRONG[lines]):
        plan_reading.read_plan("factors.gin", ["ablate.seeds = (0, 1, 2, 3, 4, 5, 6, 7)"], PLUGINS)


@pytest.mark.parametrize(
    ("count", "resolution", "effects", "complaint"),
    [
        (4, "IV", ["a x b"], "effects names 'a x b', which this fraction cannot tell from c x d: take a higher"),
        (3, "III", ["a x b"], "effects names 'a x b', which this fraction cannot tell from -c: take a higher"),
        (3, "III", ["a x b x c"], "effects names 'a x b x c', whose column is constant in this fraction"),
        (5, "V", ["a x b x c"], "cannot tell from -d x e"),
        (
            9,
            None,
            None,
            "factors must make at most 256 variants, and make 512: take fewer factors or levels, or",
        ),
    ],
)
def test_what_a_fraction_cannot_estimate_is_refused(
    count: int, resolution: str | None, effects: list[str] | None, complaint: str
) -> None:
    with pytest.raises(SettingError, match=complaint):
        make_fraction(count, resolution, effects)


def test_fractions_take_two_levels_and_ten_factors() -> None:
    with pytest.raises(SettingError, match=r"resolution is that of a fraction of two-level factors, and switch has 3"):
        make_design(THREE_BY_TWO, "III", None, {}, {})
    eleven = {f"f{index}": {f"{index}no": [], f"{index}yes": [f"f{index}.x = 1"]} for index in range(11)}
    with pytest.raises(SettingError, match="factors must be at most 10, and are 11"):
        make_design(eleven, "III", None, {}, {})


@pytest.mark.parametrize("count", [4, 6])
def test_an_override_that_the_evaluation_takes_back_is_named(count: int, tiny: Callable[..., str]) -> None:
    tiny()
    write_ablation(FACTORS)
    evaluation = "ablate.evaluation = ['train.metrics = [@metrics.Gap()]', 'evaluation.count = 4']"
    bindings = ["ablate.seeds = (0, 1, 2, 3, 4, 5, 6)", evaluation, f"evaluation.count = {count}"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan_reading.read_plan("factors.gin", bindings, PLUGINS)
    messages = [str(one.message) for one in caught if "holds while runs are trained alone" in str(one.message)]
    assert len(messages) == (count != 4)
    assert all("binds evaluation.count to another value" in message for message in messages)


def test_effects_need_seeds_like_other_contrasts(tiny: Callable[..., str]) -> None:
    tiny()
    write_ablation(FACTORS)
    wanted = r"seeds must be at least 7 for 3 confirmatory contrasts, and are 6: .* Name fewer `effects`: the others"
    with pytest.raises(UserError, match=wanted):
        plan_reading.read_plan("factors.gin", ["ablate.seeds = (0, 1, 2, 3, 4, 5)"], PLUGINS)
    one = ["ablate.seeds = (0, 1, 2, 3, 4, 5)", "ablate.effects = ['switch x reals']"]
    assert len(plan_reading.read_plan("factors.gin", one, PLUGINS)[0].confirmatory) == 1


def test_a_factorial_ablation_from_plan_to_table(tiny: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pggan_kit.ablation.settings.count_pairs_needed", lambda contrasts: 1)
    tiny()
    write_ablation(FACTORS)
    analysis = ablation.ablate("factors.gin", ["ablate.seeds = (3,)"], out="out", plugins=PLUGINS, say=[].append)
    assert [(entry["name"], entry["role"], entry["n"]) for entry in analysis["contrasts"]] == [
        ("switch: hard - soft", "confirmatory", 1),
        ("reals: sharp - faded", "confirmatory", 1),
        ("switch x reals", "confirmatory", 1),
    ]
    assert analysis["design"]["factors"] == {"switch": ["soft", "hard"], "reals": ["faded", "sharp"]}
    assert analysis["design"] == plans.load_plan(Path("out")).design

    # The same from the runs' own results.
    logs = {}
    for name in analysis["design"]["levels"]:
        rows = json.loads(Path(f"out/runs/{name}/3/result.json").read_text())["rows"]
        (logs[name],) = [math.log(row["value"]) for row in rows if row["metric"] == "gap"]
    switch, _, both = analysis["contrasts"]
    main = (logs["hard+faded"] + logs["hard+sharp"] - logs["soft+faded"] - logs["soft+sharp"]) / 2
    assert switch["mean"] == pytest.approx(main) and switch["holm"] == 1.0 and switch["verdict"] == "undecided"
    twice = logs["hard+sharp"] - logs["hard+faded"] - logs["soft+sharp"] + logs["soft+faded"]
    assert both["mean"] == pytest.approx(twice)
    table = Path("out/table.txt").read_text()
    assert "switch x reals" in table and "factorial: switch x reals. A main effect is" in table

    # The plan is what it was, and no trial is run again.
    said: list[str] = []
    assert (
        ablation.ablate("factors.gin", ["ablate.seeds = (3,)"], out="out", plugins=PLUGINS, say=said.append) == analysis
    )
    assert said == []
    changed = ["ablate.seeds = (3,)", "ablate.effects = ['switch']"]
    wanted = r"^out was begun .* \(effects: reals: sharp - faded: role was confirmatory and is exploratory\)"
    with pytest.raises(RunError, match=wanted):
        ablation.ablate("factors.gin", changed, out="out", plugins=PLUGINS)


def test_what_each_contrast_can_see(tiny: Callable[..., str]) -> None:
    """The effects of more runs see smaller differences: each is a mean over the others' levels."""
    tiny()
    rates = "{'fast': [], 'slow': ['optimizers.Adam.lr = 1e-4']}"
    write_ablation(
        f"ablate.factors = {{'switch': {SWITCHES}, 'reals': {REALS}, 'rate': {rates}}}",
        "ablate.resolution = 'III'",
        "ablate.effects = ['switch']",
        "ablate.contrasts = [('hard+sharp+fast', 'soft+faded+fast')]",
        "ablate.controls = {'hard+sharp+fast': 3}",
    )
    plan, _ = plan_reading.read_plan("factors.gin", ["ablate.seeds = (0, 1, 2, 3, 4, 5)"], PLUGINS)
    assert set(plan.variants) == {"soft+faded+fast", "hard+sharp+fast", "hard+faded+slow", "soft+sharp+slow"}
    switch, reals, rate, pair = describe_contrasts(plan)
    assert [entry["role"] for entry in (switch, reals, rate, pair)] == ["control"] * 4 and switch["pairs"] == 3
    assert switch["detectable"] is None and switch["detectable_in_runs"] is None

    # Without controls two contrasts share the level.
    plan = dataclasses.replace(plan, controls={})
    switch, reals, rate, pair = describe_contrasts(plan)
    roles = [entry["role"] for entry in (switch, reals, rate, pair)]
    assert roles == ["confirmatory", "exploratory", "exploratory", "confirmatory"]
    deviations = st.find_detectable_mean(6, 0.05 / 2)
    assert deviations is None and reals["detectable"] == st.find_detectable_mean(6) is not None
    assert reals["detectable_in_runs"] == pytest.approx(reals["detectable"] * math.sqrt(4 * 0.5**2))
    assert pair["weights"] == {"hard+sharp+fast": 1.0, "soft+faded+fast": -1.0}

    # The table says the same.
    console = Console(file=io.StringIO(), width=200)
    console.print(build_contrast_table(plan))
    shown = " ".join(console.file.getvalue().split())  # type: ignore[attr-defined]
    assert "fraction of resolution III: 4 of the 8 combinations, rate = -switch x reals" in shown
    assert "two factors: switch = -reals x rate; reals = -switch x rate; rate = -switch x reals." in shown
    cells = f"reals: sharp - faded exploratory 6 4 {reals['detectable']:.2g} {reals['detectable']:.2g}"
    assert cells in " ".join(shown.replace("│", " ").split())
