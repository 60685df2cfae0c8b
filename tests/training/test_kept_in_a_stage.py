"""Test what is said of a run that its switch keeps from its last stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.ablation_plugin import Keeping

from pggan_kit import Component, hookimpl


class EndsAt:
    """An observer that ends the run once the clock is there."""

    def __init__(self, images: int) -> None:
        self.images = images

    @hookimpl
    def should_end(self, state: Any) -> bool:
        return bool(state.images >= self.images)


HOLDS = Component("switches", "Holds", Keeping)
MESSAGES = {
    0: r"^ended in stage 1 of 3, at 4x4: the switch never let it grow\. .* returns False",
    1: r"^ended in stage 2 of 3, at 8x8: the switch let it grow no further\. .* None leaves the end",
}


@pytest.mark.parametrize("stage", MESSAGES)
def test_a_run_that_never_grew_says_so(train: Callable[..., Any], stage: int) -> None:
    lines = ["train.switch = @switches.Holds()", f"switches.Holds.stage = {stage}"]
    with pytest.warns(UserWarning, match=MESSAGES[stage]):
        run = train(*lines, plugins=(HOLDS,))
    assert (run.state.images, run.state.stage.index) == (40, stage)
    assert "warning: ended in stage" in (run.files.path / "log.txt").read_text()


@pytest.mark.parametrize("stage", [2, 3])
def test_a_run_that_got_to_its_last_stage_says_nothing(
    train: Callable[..., Any], recwarn: pytest.WarningsRecorder, stage: int
) -> None:
    train("train.switch = @switches.Holds()", f"switches.Holds.stage = {stage}", plugins=(HOLDS,))
    assert not [each for each in recwarn if "ended in stage" in str(each.message)]


@pytest.mark.parametrize("line", ["schedule.total_images = 8", "train.seed = 1"])
def test_a_run_that_another_reason_ended_blames_no_switch(
    train: Callable[..., Any], recwarn: pytest.WarningsRecorder, line: str
) -> None:
    run = train(line, "train.switch = @switches.Holds()", plugins=(HOLDS, EndsAt(8)))
    assert run.state.stage.index == 0
    assert not [each for each in recwarn if "ended in stage" in str(each.message)]
