"""Suites of components that differ little from a neighbour, whose suite trains again and again by default."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import pytest

from pggan_kit.testing.suite import StepSuite, TrainedSuite

AGAIN = tuple(
    test.__name__
    for test in (
        TrainedSuite.test_same_seed_same_weights,
        TrainedSuite.test_resumes_exactly,
        TrainedSuite.test_stops_exactly,
        TrainedSuite.test_begins_each_run_afresh,
        StepSuite.test_recorded_steps_agree,
        StepSuite.test_steps_can_be_captured,
    )
)
"""Names of the tests that train several runs or record steps: nine tenths of a suite's time."""

SuiteClass = TypeVar("SuiteClass", bound=type[TrainedSuite])


def train_once(suite: SuiteClass) -> SuiteClass:
    """Mark those tests of a variant's suite as slow that train it more than once.

    By default it trains one run through a fade, and a few steps in each memory format and in bfloat16. For a variant
    that keeps no state but what a neighbour keeps as well, whose suite has all tests.
    """
    for name in AGAIN:
        if hasattr(suite, name):
            setattr(suite, name, _copy_as_slow(getattr(suite, name)))
    return suite


def _copy_as_slow(test: Callable[[TrainedSuite], None]) -> Callable[[TrainedSuite], None]:
    @pytest.mark.slow
    @functools.wraps(test)
    def run(self: TrainedSuite) -> None:
        test(self)

    return run
