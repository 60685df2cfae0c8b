"""Test captured steps with graphs that are replayed on the CPU: equal to eager steps bit for bit, or not captured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.captured_runs import CASES, assert_same_runs, bind_case, read_log
from helpers.replayed_graphs import ReplayRecorder

from pggan_kit.data.device_feed import ResidentFeed
from pggan_kit.runs import learning_rate_tensors
from pggan_kit.training import loop, non_finite


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> ReplayRecorder:
    """Let this CPU be a device that captures, whose checks do not wait."""
    made = ReplayRecorder()

    def make_recorder(experiment: Any, device: Any) -> ReplayRecorder | None:
        return None if experiment.capture == "never" else made

    monkeypatch.setattr(loop, "make_recorder", make_recorder)
    monkeypatch.setattr(learning_rate_tensors, "uses_rate_tensors", lambda device: True)
    monkeypatch.setattr(non_finite, "checks_each_step", lambda device: False)
    return made


@pytest.mark.parametrize("case", CASES)
def test_a_captured_run_equals_an_eager_one(
    case: str, train: Callable[..., Any], recorder: ReplayRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grow and fade, with alpha, latents, rates and penalties that move from step to step."""
    if case in ("resident", "flipped"):
        monkeypatch.setattr(loop, "choose_feed", lambda source, device, limit: ResidentFeed(source, device))
    lines, base = bind_case(case)
    train(*lines, "train.capture = 'never'", run_dir="eager", base=base)
    assert recorder.replays == 0

    train(*lines, run_dir="captured", base=base)
    assert_same_runs("captured", "eager")
    assert "not captured" not in read_log("captured")
    assert read_log("captured").count("are captured") >= 3
    # Each of the three regions replays most of its steps.
    assert recorder.replays >= 6
    assert recorder.forgotten >= 2
