"""Test the comparison of compiled steps with eager ones: right ones pass, whatever their rounding; wrong ones never do.

Other machines are stood in for by other orders of summation and other precisions (`helpers/other_machines.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compiled_steps import Passes
from helpers.other_machines import MACHINES, OtherMachine
from scipy.stats import beta
from torch import Tensor, nn

from pggan_kit.schedule import ScheduleSettings
from pggan_kit.training.parity import (
    ATTEMPTS,
    FACTOR,
    SUBNORMAL,
    Comparison,
    Difference,
    Evaluate,
    RoundingNoise,
    choose_rounding,
    describe_excess,
    measure_errors,
)
from pggan_kit.training.step import Work
from pggan_plugins.losses import WGANGP, Hinge, NonSaturating, Relativistic
from pggan_plugins.penalties import R1, Drift, GradientPenalty

CPU = torch.device("cpu")
ROUNDING = choose_rounding(CPU, 3)

LOSSES: dict[str, Callable[[], Any]] = {
    "WGANGP": lambda: WGANGP([GradientPenalty(), Drift()]),
    "NonSaturating": lambda: NonSaturating([R1()]),
    "Relativistic": lambda: Relativistic([R1()]),
    "Hinge": lambda: Hinge([R1(), Drift()]),
}

SIZES = {"4 and 8 pixels": (4, 8), "7 and 14 pixels": (7, 14)}


def make_passes(loss: str, sizes: str = "4 and 8 pixels", batch: int = 4, **chosen: Any) -> Passes:
    schedule = ScheduleSettings(SIZES[sizes], 12, 8, batch)
    return Passes(loss=LOSSES[loss](), schedule=schedule, **chosen)


# The comparison, on a function of a few numbers.


class Line:
    """A pass of one weight and one bias: the sum of alpha * (weight * rows + bias), with its gradients."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.linspace(-1, 1, 7))
        self.bias = nn.Parameter(torch.zeros(7))
        batch = {"rows": torch.linspace(0.5, 2, 21).reshape(3, 7), "labels": torch.arange(3), "none": None}
        self.work = Work("generator", None, batch, {"generator": torch.tensor(0.25)}, None)  # type: ignore[arg-type]

    def compare(self, eager: Evaluate | None = None) -> Comparison:
        return Comparison(eager or self.run, self.work, [self.weight, self.bias], ROUNDING)

    def run(self, work: Work, **changed: Any) -> dict[str, Tensor]:
        rows = work.batch["rows"]
        assert rows is not None
        weight = changed.get("weight", self.weight.detach())
        alpha = changed.get("alpha", work.alpha["generator"])
        bias = changed.get("bias", self.bias.detach())
        term = (alpha * (weight * rows + bias)).sum()
        return {"term": term, "the gradient of weight": alpha * rows.sum(0) * changed.get("factor", 1.0)}


def test_the_same_function_summed_in_another_order_is_right() -> None:
    line = Line()

    def run_reversed(work: Work) -> dict[str, Tensor]:
        rows = work.batch["rows"]
        assert rows is not None
        alpha = work.alpha["generator"]
        columns = (alpha * (line.weight * rows + line.bias)).detach().sum(0)
        gradient = rows[2] * alpha + rows[1] * alpha + rows[0] * alpha
        return {"term": columns.flip(0).cumsum(0)[-1], "the gradient of weight": gradient}

    comparison = line.compare()
    assert comparison.find_problem(line.run) is None
    assert comparison.near[0].scales is None, "equal results need no scale"
    assert comparison.find_problem(run_reversed) is None
    assert comparison.near[0].scales is not None


def test_a_constant_in_the_place_of_a_weight_or_of_alpha_is_found() -> None:
    line = Line()
    stale = functools.partial(line.run, weight=line.weight.detach().clone())
    assert "term differs by" in str(line.compare().find_problem(stale))
    # A bias of zeros is moved, too.
    assert "term differs by" in str(line.compare().find_problem(functools.partial(line.run, bias=torch.zeros(7))))
    frozen = functools.partial(line.run, alpha=line.work.alpha["generator"])
    assert "differs by" in str(line.compare().find_problem(frozen))
    problem = line.compare().find_problem(functools.partial(line.run, factor=1.001))
    assert str(problem).startswith("compiled, the gradient of weight differs by")


def test_weights_and_random_numbers_are_restored_bit_for_bit() -> None:
    line = Line()
    before = [line.weight.detach().clone(), line.bias.detach().clone()]
    state = torch.get_rng_state()

    def fail(work: Work) -> dict[str, Tensor]:
        if not torch.equal(line.weight, before[0]):
            raise ValueError("at moved weights")
        return line.run(work)

    line.compare().find_problem(functools.partial(line.run, factor=1.1))
    with pytest.raises(ValueError, match="at moved weights"):
        line.compare().find_problem(fail)
    assert torch.equal(line.weight, before[0]) and torch.equal(line.bias, before[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_places_keep_labels_and_bounds() -> None:
    line = Line()
    comparison = line.compare()
    assert comparison.near[0].work.batch["rows"] is line.work.batch["rows"], "the first place is the batch at hand"
    for place in (*comparison.near[1:], *comparison.far):
        rows = place.work.batch["rows"]
        assert place.work.batch["labels"] is line.work.batch["labels"] and place.work.batch["none"] is None
        assert rows is not None and line.work.batch["rows"] is not None
        assert (rows <= line.work.batch["rows"]).all() and (rows >= 0).all() and not rows.equal(line.work.batch["rows"])
    assert [float(place.work.alpha["generator"]) for place in comparison.far] == [0.75] * ATTEMPTS
    assert [float(place.work.alpha["generator"]) for place in comparison.near] == [0.25] * ATTEMPTS


def test_an_outlier_at_one_place_is_no_reason_to_refuse() -> None:
    """As where rounding moves an activation across a kink: rarely, and at one place only."""
    line = Line()
    calls = []

    def run_with_outliers(work: Work, every: int) -> dict[str, Tensor]:
        calls.append(work)
        return line.run(work, factor=1.1 if len(calls) % every == 1 or every == 1 else 1.0)

    assert line.compare().find_problem(functools.partial(run_with_outliers, every=2)) is None
    assert len(calls) == 4, "twice near the weights at hand, twice far from them"
    calls.clear()
    assert line.compare().find_problem(functools.partial(run_with_outliers, every=1)) is not None
    assert len(calls) == ATTEMPTS


def test_noise_changes_results_by_as_much_as_rounding_may() -> None:
    ones = torch.ones(10_000)
    wide = ones.double()
    rounding = {torch.float32: 1e-3}
    with RoundingNoise(rounding, 1):
        doubled = ones * 2
        view = ones.view(100, 100)
        in_place = torch.empty(3).fill_(1.0)
        counts = torch.arange(3) + 1
        other = wide * 2
    assert 0.9e-3 < (doubled / 2 - 1).abs().max() <= 1.01e-3
    assert abs(float((doubled / 2 - 1).mean())) < 3e-5
    assert torch.equal(view.flatten(), ones) and torch.equal(in_place, torch.ones(3))
    assert counts.tolist() == [1, 2, 3]
    with RoundingNoise(rounding, 1):
        again = ones * 2
    assert torch.equal(again, doubled)
    assert torch.equal(other, wide * 2), "only float32 was named"


def test_noise_moves_the_smallest_numbers_of_float16_by_their_distance() -> None:
    """A relative change would leave them as they are."""
    smallest = torch.full((1_000,), SUBNORMAL, dtype=torch.float16)
    with RoundingNoise({torch.float16: 1e-3}, 1):
        changed = smallest * 1
    assert set((changed / smallest).tolist()) == {0.0, 1.0, 2.0}


def test_differences_that_no_scale_explains_are_described() -> None:
    nan = torch.full((3,), math.nan)
    one = {"a": torch.ones(3), "b": torch.full((2,), 1e-6)}
    assert measure_errors(one, one) == {}
    assert measure_errors({"a": nan}, {"a": nan}) == {}, "the guard reports what is NaN in both"
    assert math.isnan(measure_errors(one, {**one, "a": nan})["a"])
    assert measure_errors(one, {"a": one["a"]}) == {"b": math.inf} == measure_errors({"a": one["a"]}, one)
    assert measure_errors(one, {**one, "a": one["a"] + 0.5}) == {"a": 0.5}
    assert describe_excess({"a": Difference(FACTOR * 0.99, 1.0)}) is None
    excess = describe_excess({"a": Difference(1.5 * FACTOR, 1.0)})
    assert excess == f"compiled, a differs by {1.5 * FACTOR:.2g}, where rounding explains {FACTOR:.2g}"
    assert describe_excess({"a": Difference(math.nan, 1.0)}) is not None
    assert describe_excess({"b": Difference(math.inf, 1.0)}) == "b is only in one of the compiled and the eager step"


# Steps of networks: right ones.


class Outcomes:
    """What comparisons of other machines' steps found, by machine.

    Attributes:
        ratios: The largest ratio of difference and scale at the first place of each surrounding.
        refused: The steps that were refused.
    """

    def __init__(self) -> None:
        self.ratios: dict[str, list[float]] = {machine: [] for machine in MACHINES}
        self.refused: list[str] = []

    def add(self, passes: Passes, number: int, seed: int) -> None:
        """Compare a pass at the weights, batch and alpha of a seed."""
        comparison = passes.compare(number, seed)
        for machine, operations in MACHINES.items():
            other = OtherMachine(operations)
            run = passes.run_on(other, number)
            for place in (comparison.near[0], comparison.far[0]):
                differences = comparison.measure(place, run)
                ratios = [error / scale for error, scale in differences.values()]
                self.ratios[machine].append(max(ratios, default=0.0))
            assert other.calls, "the machine replaced no operation"
            problem = comparison.find_problem(run)
            if problem is not None:
                self.refused.append(f"{machine}, pass {number}, seed {seed}: {problem}")


def test_right_steps_of_other_machines_are_not_refused() -> None:
    """The slow test below measures how rarely, with many more seeds."""
    outcomes = Outcomes()
    passes = make_passes("WGANGP")
    for number in range(2):
        outcomes.add(passes, number, seed=number)
    assert outcomes.refused == []
    for machine, ratios in outcomes.ratios.items():
        # A median of 0 would mean that the stand-in rounds as eager does.
        assert 0 < np.median(ratios) < FACTOR / 4, machine


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_right_steps_are_refused_at_most_once_in_ten_thousand(precision: str) -> None:
    """Count the places at which a right step exceeds the bound, over losses, sizes, batches and seeds.

    A step is refused where all `ATTEMPTS` places of one of the two surroundings fail. The chance of one place is at
    most the upper end of its interval of 99 % (Clopper and Pearson 1934).
    """
    outcomes = Outcomes()
    for loss in LOSSES:
        for sizes, batch, fading in (("4 and 8 pixels", 4, True), ("7 and 14 pixels", 32, False)):
            passes = make_passes(loss, sizes, batch, fading=fading, precision=precision)
            for seed in range(6):
                for number in range(2):
                    outcomes.add(passes, number, seed)

    assert outcomes.refused == []
    for machine, ratios in outcomes.ratios.items():
        exceeding = sum(ratio > FACTOR for ratio in ratios)
        chance = float(beta.ppf(0.99, exceeding + 1, len(ratios) - exceeding))
        print(f"{precision}, {machine}: {exceeding} of {len(ratios)} places, median {np.median(ratios):.2g}")
        assert 2 * chance**ATTEMPTS < 1e-4, machine


# Steps of networks: wrong ones.


def weigh_penalty(passes: Passes, work: Work, index: int, factor: float) -> dict[str, Tensor]:
    """Return a pass whose gradients have a penalty with another weight, while its terms look right."""
    loss = passes.experiment.loss
    penalty = loss.penalties[index]
    before = penalty.weight
    result = passes.run_eager(0, work)
    try:
        penalty.weight = factor * before
        others = passes.run_eager(0, work)
    finally:
        penalty.weight = before
    return {name: others[name] if name.startswith("the gradient") else value for name, value in result.items()}


def freeze_alpha(passes: Passes, work: Work, path: str) -> dict[str, Tensor]:
    """Return a pass that holds the alpha at hand as a constant."""
    return passes.run_eager(0, work._replace(alpha={**work.alpha, path: passes.works[0].alpha[path]}))


def keep_weight(passes: Passes, work: Work, parameter: nn.Parameter, stale: Tensor) -> dict[str, Tensor]:
    """Return a pass that holds a weight at hand as a constant."""
    moved = parameter.detach().clone()
    try:
        parameter.data.copy_(stale)
        return passes.run_eager(0, work)
    finally:
        parameter.data.copy_(moved)


def scale_gradients(passes: Passes, work: Work, factor: float) -> dict[str, Tensor]:
    result = passes.run_eager(0, work)
    return {name: value * factor if name.startswith("the gradient") else value for name, value in result.items()}


def list_accepted_errors(passes: Passes, seed: int) -> list[str]:
    """Return the wrong steps of the discriminator that the comparison takes for right."""
    comparison = passes.compare(0, seed)
    wrong: dict[str, Callable[[Work], dict[str, Tensor]]] = {}
    for index, penalty in enumerate(passes.experiment.loss.penalties):
        name = type(penalty).__name__
        wrong[f"{name} is dropped"] = functools.partial(weigh_penalty, passes, index=index, factor=0.0)
        wrong[f"{name} has half its weight"] = functools.partial(weigh_penalty, passes, index=index, factor=0.5)
    for path in passes.works[0].alpha:
        # The reals were faded before the pass.
        if path != "reals":
            wrong[f"the alpha of the {path} is frozen"] = functools.partial(freeze_alpha, passes, path=path)
    for name, parameter in passes.state.discriminator.named_parameters():
        stale = parameter.detach().clone()
        wrong[f"{name} is stale"] = functools.partial(keep_weight, passes, parameter=parameter, stale=stale)
    wrong["all gradients are 0.1 % too large"] = functools.partial(scale_gradients, passes, factor=1.001)
    return [name for name, run in wrong.items() if comparison.find_problem(run) is None]


@pytest.mark.parametrize("loss", ["WGANGP", pytest.param("Hinge", marks=pytest.mark.slow)])
def test_wrong_steps_are_refused(loss: str) -> None:
    assert list_accepted_errors(make_passes(loss), seed=0) == []


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_wrong_steps_are_always_refused(loss: str) -> None:
    for sizes, batch, seeds in (("4 and 8 pixels", 4, 10), ("7 and 14 pixels", 32, 3)):
        passes = make_passes(loss, sizes, batch)
        for seed in range(seeds):
            assert list_accepted_errors(passes, seed) == [], (sizes, seed)
