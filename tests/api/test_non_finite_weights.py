"""Test checkpoints whose averaged generator holds NaN or infinite numbers: said wherever images are drawn from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from helpers.reporting import leave_out_plots

import pggan_kit
from pggan_kit.runs.checkpoints import Checkpoints


def spoil(run: Any, value: float, count: int) -> list[str]:
    """Save the run's last checkpoint again with a number in all of the average's first tensors; return their names."""
    saved = run.checkpoints.load_last()
    weights = dict(saved.select_average(None))
    names = list(weights)[:count]
    for name in names:
        weights[name] = torch.full_like(weights[name], value)
    Checkpoints(run.checkpoints.folder, keep=100).save(replace(saved, averages={"half_life": weights}))
    return names


@pytest.mark.parametrize(("value", "count"), [(math.nan, 1), (math.inf, 5)])
def test_nothing_is_drawn_from_weights_that_are_not_finite(
    value: float, count: int, train: Callable[..., Any], cli: Callable[..., Result], stub: str
) -> None:
    run = train("schedule.sizes = (4, 8)", run_dir="run")
    names = spoil(run, value, count)
    total = len(run.state.ema.state_dict())
    listed = ", ".join(names[:3]) + (", ..." if count > 3 else "")
    said = f"the averaged generator of the checkpoint at images 24 has NaN or infinite numbers in {count} of {total} "
    said += f"tensors: {listed}. Its images are of no use"

    # The weights are there to be looked at.
    with pytest.warns(UserWarning, match="averaged generator") as caught:
        generator = pggan_kit.load_generator("run", plugins=[stub])
    assert [str(warning.message) for warning in caught] == [said]
    assert not all(tensor.isfinite().all() for tensor in generator.state_dict().values())

    for target in ("x.npz", "x.png", "x"):
        result = cli("sample", "run", "--out", target, "--plugin", stub)
        assert result.exit_code == 2 and f"warning: {said}" in result.stderr
        assert "error: the generator at images 24 draws NaN or infinite numbers" in result.stderr
        assert "Draw from an earlier checkpoint of its run" in result.stderr
        assert not Path(target).exists()
    result = cli("sample", "run", "--out", "x.npz", "--plugin", stub, "--stage", "0")
    assert result.exit_code == 0 and "NaN" not in result.stderr, "an earlier stage is whole"


def test_a_report_says_which_checkpoint_it_cannot_draw(
    train: Callable[..., Any], cli: Callable[..., Result], stub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_out_plots(monkeypatch)
    spoil(train("schedule.sizes = (4, 8)", run_dir="run"), math.nan, 1)
    result = cli("report", "run", "--plugin", stub)
    assert result.exit_code == 0, result.output
    assert "checkpoint at images 24 has NaN" in result.stderr and "not all pictures can be drawn" in result.stderr


def test_an_evaluation_says_so_before_it_fails(
    train: Callable[..., Any], cli: Callable[..., Result], stub: str
) -> None:
    run = train("train.metrics = []", run_dir="run")
    names = spoil(run, math.nan, 1)
    result = cli("evaluate", "run", "--metric", "SlicedWasserstein", "--count", "4", "--plugin", stub)
    assert result.exit_code == 1, result.output
    assert f"tensors: {names[0]}. Its images are of no use" in result.stderr
    assert "the generator's images are not finite" in result.stderr
