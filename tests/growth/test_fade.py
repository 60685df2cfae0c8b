"""The rule of alpha, case by case."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from pggan_kit.errors import TrainingError
from pggan_kit.growth.fade import NETS, PATHS, Fade
from pggan_kit.schedule import Stage
from pggan_kit.testing import make_stages

START = 100
LENGTH = 8


class Answers:
    """Hooks that answer with a function of progress and path, and record the questions."""

    def __init__(self, answer: Callable[[float, str], float | None] = lambda progress, path: None) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def ask(self, hook: str, **arguments: Any) -> float | None:
        assert hook == "fade_alpha"
        self.asked.append(arguments)
        return self.answer(arguments["progress"], arguments["path"])


def make_stage(fade_images: int = LENGTH) -> Stage:
    return make_stages(fade_images=fade_images)[-1]


def test_without_an_answer_alpha_is_the_progress() -> None:
    fade = Fade(Answers())
    for path in PATHS:
        alphas = [fade.compute_alpha(make_stage(), START, START + spent, path) for spent in range(LENGTH + 3)]
        assert alphas == [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 1]


def test_the_switch_is_asked_with_stage_progress_clock_and_path() -> None:
    hooks = Answers(lambda progress, path: progress / 4)
    stage = make_stage()
    assert Fade(hooks).compute_alpha(stage, START, START + 2, "discriminator") == 0.0625
    assert hooks.asked == [{"stage": stage, "progress": 0.25, "images": START + 2, "path": "discriminator"}]


@pytest.mark.parametrize(("length", "spent"), [(0, 0), (0, 5), (LENGTH, LENGTH), (LENGTH, LENGTH + 1)])
def test_outside_of_a_fade_alpha_is_1_and_nobody_is_asked(length: int, spent: int) -> None:
    hooks = Answers(lambda progress, path: 0.5)
    fade = Fade(hooks)
    stage = make_stage(length)
    assert [fade.compute_alpha(stage, START, START + spent, path) for path in PATHS] == [1.0] * 3
    assert hooks.asked == []
    if length == 0:
        assert fade.find_old_paths(stage, START) == set()


def test_reals_that_do_not_fade_have_alpha_1() -> None:
    half = lambda progress, path: 0.5  # noqa: E731
    for fade_reals, alpha in ((True, 0.5), (False, 1.0)):
        fade = Fade(Answers(half), fade_reals)
        assert fade.compute_alphas(make_stage(), START, START + 1, NETS) == {**dict.fromkeys(NETS, 0.5), "reals": alpha}


@pytest.mark.parametrize("answer", [-0.25, 1.25, float("nan"), float("inf")])
def test_an_answer_outside_0_to_1_is_an_error(answer: float) -> None:
    fade = Fade(Answers(lambda progress, path: answer))
    with pytest.raises(TrainingError, match=rf"gave alpha {answer} for the reals at images 103; it lies in \[0, 1\]"):
        fade.compute_alpha(make_stage(), START, START + 3, "reals")


@pytest.mark.parametrize("answer", ["half", [0.5]])
def test_an_answer_that_is_no_number_names_the_switch(answer: Any) -> None:
    fade = Fade(Answers(lambda progress, path: answer))
    text = f"the switch gave {answer!r} as alpha for the reals at images 103; it must be a number in [0, 1]"
    with pytest.raises(TrainingError, match=f"^{re.escape(text)}$"):
        fade.compute_alpha(make_stage(), START, START + 3, "reals")


def test_a_network_that_starts_at_1_has_no_old_path_and_stays_at_1() -> None:
    fade = Fade(Answers(lambda progress, path: {"generator": 1.0, "discriminator": progress}.get(path)))
    assert fade.find_old_paths(make_stage(), START) == {"discriminator"}
    alphas = fade.compute_alphas(make_stage(), START, START + 2, {"discriminator"})
    assert alphas == {"generator": 1.0, "discriminator": 0.25, "reals": 0.25}

    falls = Fade(Answers(lambda progress, path: 1.0 - progress))
    assert falls.find_old_paths(make_stage(), START) == set()
    with pytest.raises(
        TrainingError,
        match=r"gave alpha 0\.75 for the generator at images 102, after 1 at the start of stage 8x8: a path that "
        "starts at 1 has no old path to return to",
    ):
        falls.compute_alphas(make_stage(), START, START + 2, set())


def test_reals_may_leave_1() -> None:
    fade = Fade(Answers(lambda progress, path: 1.0 - progress if path == "reals" else 1.0))
    assert fade.compute_alphas(make_stage(), START, START + 2, set()) == {**dict.fromkeys(NETS, 1.0), "reals": 0.75}
