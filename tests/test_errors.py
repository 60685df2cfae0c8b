"""Settings that are checked, and what their errors say."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pggan_kit.errors import (
    SettingError,
    check_above,
    check_at_least,
    check_between,
    check_choice,
    check_finite,
    did_you_mean,
    first_line,
    suggest,
)


@pytest.mark.parametrize("value", [1, 1.5, None, math.inf, np.int64(1), np.float32(2), {4: 1, 8: 20}, {4: None, 8: 1}])
def test_what_is_large_enough_is_taken(value: Any) -> None:
    check_at_least("x", value, 1)
    check_above("x", value, 0.5)


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (lambda: check_at_least("x", 0, 1), "x must be at least 1, and is 0"),
        (lambda: check_at_least("x", {4: 1, 8: 0.5}, 1), "x must be at least 1, and is 0.5"),
        (lambda: check_at_least("x", math.nan, 0), "x must be at least 0, and is nan"),
        (lambda: check_at_least("x", "2", 1), "x must be at least 1, and is '2'"),
        (lambda: check_at_least("x", True, 1), "x must be at least 1, and is True"),
        (lambda: check_at_least("x", 0, 1, instead="None for all"), "x must be at least 1, or None for all, and is 0"),
        (lambda: check_at_least("x", 1.5, 1, whole=True), "x must be a whole number of at least 1, and is 1.5"),
        (lambda: check_above("x", 0, 0), "x must be above 0, and is 0"),
        (lambda: check_above("x", {4: 1.0, 8: math.nan}, 0), "x must be above 0, and is nan"),
        (lambda: check_between("x", 1.5, 0, 1), "x must be in [0, 1], and is 1.5"),
        (lambda: check_between("x", 1, 0, 1, high_included=False), "x must be in [0, 1), and is 1"),
        (lambda: check_between("x", 0, 0, 1, low_included=False), "x must be in (0, 1], and is 0"),
        (lambda: check_between("x", math.nan, 0, 1, instead="None"), "x must be in [0, 1], or None, and is nan"),
        (lambda: check_finite("x", -math.inf), "x must be finite, and is -inf"),
        (lambda: check_finite("x", 10**400), f"x must be finite, and is {10**400}"),
        (lambda: check_choice("x", "Stop", ("stop", "skip")), "x must be 'stop' or 'skip', not 'Stop' (did you mean "),
        (lambda: check_choice("x", "zzz", ("a",)), "x must be 'a', not 'zzz'"),
    ],
)
def test_what_is_wrong_names_the_setting_and_says_why(check: Callable[[], None], message: str) -> None:
    with pytest.raises(SettingError) as raised:
        check()
    assert str(raised.value).startswith(message)
    assert (raised.value.setting, f"x {raised.value.complaint}") == ("x", str(raised.value))


@pytest.mark.parametrize("ends", [0, 1])
def test_the_ends_of_an_interval_are_inside_where_they_are_included(ends: int) -> None:
    check_between("x", ends, 0, 1)
    with pytest.raises(SettingError):
        check_between("x", ends, 0, 1, low_included=False, high_included=False)


def test_the_nearest_word_is_found_in_any_case_and_suggested() -> None:
    assert did_you_mean("Hing", ["Hinge", "Wgan"]) == "Hinge"
    assert did_you_mean("HINGE", ["Hinge", "Wgan"]) == "Hinge"
    assert did_you_mean("zzz", ["Hinge"]) is None
    assert did_you_mean(None, ["Hinge"]) is None and did_you_mean(2828, ["28281", "x"]) == "28281"
    assert suggest("Hinge") == " (did you mean Hinge?)"
    assert suggest(None) == ""


def test_the_first_line_of_an_error() -> None:
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
