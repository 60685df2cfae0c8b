"""Contrasts of two variants and more: their sums, failures and names, and the plan that fixes them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest
from scipy import stats

from pggan_kit.ablation import statistics as st
from pggan_kit.ablation.contrasts import Contrast, compare_failures, make_pair
from pggan_kit.ablation.plan import Plan

INF = math.inf
CORNERS = Contrast("switch:loss", {"a": 1.0, "b": -1.0, "c": -1.0, "d": 1.0}, "confirmatory")


def make_plan(**changes: Any) -> Plan:
    given: dict[str, Any] = {
        "name": "made_up",
        "base": "base.gin",
        "variants": {"a": [], "b": ["train.tick = 4"]},
        "seeds": [0, 1],
        "controls": {},
        "contrasts": [["b", "a"]],
        "primary": "FID",
        "margin": 0.1,
        "evaluation": [],
        "quantities": {"FID": {"direction": "lower", "scale": "log"}},
        "shared": [],
        "branch": None,
        "configs": {},
        "plugins": {},
    }
    return Plan(**{**given, **changes})


def test_a_field_at_its_default_does_not_change_a_plan() -> None:
    """Plans that were fixed before the field existed keep their hashes."""
    plan = make_plan()
    content = {}
    for field in dataclasses.fields(Plan):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if not has_default and field.name not in ("name", "base"):
            content[field.name] = getattr(plan, field.name)
    assert plan.fixed_fields == content and {"variants", "contrasts", "margin"} <= set(content)
    assert plan.hash == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert make_plan(exploratory=[7]).hash == plan.hash != make_plan(average="copy").hash


def test_a_pair_is_a_contrast() -> None:
    pair = make_pair("hard", "linear", controls=())
    assert (pair.name, pair.role, pair.pair) == ("hard - linear", "confirmatory", ("hard", "linear"))
    assert pair.weights == {"hard": 1.0, "linear": -1.0} and make_pair("a", "b", {"b": 6}).role == "control"
    assert pair.sum_values({"hard": 0.3, "linear": 0.1}) == 0.3 - 0.1, "to the last digit"
    assert CORNERS.pair is None and Contrast("half", {"a": 0.5, "b": -0.5}, "confirmatory").pair is None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((4.0, 2.0, 1.0, 0.5), 4.0 - 2.0 - 1.0 + 0.5),
        ((INF, 2.0, 1.0, 0.5), INF),  # a failed run decides
        ((4.0, INF, 1.0, 0.5), -INF),
        ((INF, INF, 1.0, 0.5), 0.0),  # a failure on each side: the other two would be an effect of one factor
        ((INF, INF, INF, 0.5), -INF),
        ((INF, INF, INF, INF), 0.0),
        ((INF, -INF, 1.0, 0.5), INF),  # one failed, the other is perfect on a logarithmic scale
        ((4.0, -INF, INF, 0.5), 0.0),
    ],
)
def test_runs_without_a_value_decide_unless_they_cancel(values: tuple[float, ...], wanted: float) -> None:
    total = CORNERS.sum_values(dict(zip("abcd", values, strict=True)))
    assert total == wanted


def test_thirds_cancel_too() -> None:
    thirds = Contrast("x", {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3, "d": -1.0}, "confirmatory")
    assert thirds.sum_values(dict.fromkeys("abcd", INF)) == 0.0
    pairs = Contrast("y", {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3, "d": -1 / 3, "e": -1 / 3, "f": -1 / 3}, "confirmatory")
    assert {pairs.sum_values(dict.fromkeys("abcdef", value)) for value in (0.7, 0.9, 1000.0)} == {0.0}
    assert thirds.sum_values({"a": 0.7, "b": 0.7, "c": 0.7 + 3e-9, "d": 0.7}) == pytest.approx(1e-9, rel=1e-6)
    assert thirds.sum_side({"a": 3.0, "b": 6.0, "c": 0.0, "d": 7.0}, 1) == pytest.approx(3.0)
    assert thirds.sum_side({"a": 3.0, "b": 6.0, "c": 0.0, "d": 7.0}, -1) == 7.0


def test_failures_of_two_sides() -> None:
    """Sign flips of a pair's failures are McNemar's exact test, so that a pair is no special case."""
    alone = [(1, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 0), (1, 1)]
    pair = make_pair("a", "b", controls=())
    found = compare_failures(pair, [{"a": bool(one), "b": bool(other)} for one, other in alone])
    assert found == st.Failures(5, 2, 4, 1, found.p) and found.p == stats.binomtest(4, 5).pvalue
    assert found.p == st.run_sign_flip_test([one - other for one, other in alone]).p

    # a alone fails on four seeds; on one seed a failure on each side cancels.
    failed = [dict.fromkeys("abcd", False) | {"a": True} for _ in range(4)]
    failed += [dict.fromkeys("abcd", False) | {"a": True, "b": True}, dict.fromkeys("abcd", False)]
    assert compare_failures(CORNERS, failed) == st.Failures(5, 1, 4, 0, 2 / 2**4)
    assert compare_failures(CORNERS, failed[-2:]).p == 1.0
