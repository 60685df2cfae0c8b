"""Measure where an iteration's time goes, in a separate pass that waits for the device around each piece."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pggan_kit.benchmarking.rig import Rig
from pggan_kit.components import DuePenalty, Penalty, Reals
from pggan_kit.training.step import UpdateContext, average_each

T = TypeVar("T")

PASSES = 5
"""Number of passes of which the median counts, after one to warm up."""

PIECES = ("data", "discriminator", "penalty", "generator", "optimizer", "hooks")
"""The pieces of an iteration; see `measure_shares`."""


class Stopwatch:
    """Seconds by piece.

    Args:
        device: The device to wait for.

    Attributes:
        pieces: Seconds by the name of the piece.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pieces: dict[str, float] = defaultdict(float)

    def read_clock(self) -> float:
        """Return the time at which the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def time(self, piece: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run work and return its result; add the seconds it takes to a piece."""
        began = self.read_clock()
        result = work(*args, **kwargs)
        self.pieces[piece] += self.read_clock() - began
        return result


def measure_shares(rig: Rig) -> dict[str, float]:
    """Return the share of each of `PIECES` in an iteration that is not compiled, as a mean over lazy penalties' period.

    `data` is drawing reals and latents; `penalty` is what an update of D takes longer for its penalties; `optimizer`
    includes the generator's average; `hooks` is described at `measure_loop_overhead`.

    Args:
        rig: The stage to measure, after its first iteration.
    """
    # A penalty is not a call of its own: its time is that of an update with it, less that of one without.
    total: dict[str, float] = defaultdict(float)
    for share, update in rig.list_kinds():
        pieces = _measure_pieces(rig, update, penalised=True)
        without_penalty = _measure_pieces(rig, update, penalised=False)
        pieces["penalty"] = max(0.0, pieces["discriminator"] - without_penalty["discriminator"])
        pieces["discriminator"] -= pieces["penalty"]
        for piece, seconds in pieces.items():
            total[piece] += share * seconds

    total["hooks"] = measure_loop_overhead(rig)
    whole = sum(total.values())
    return {piece: total[piece] / whole for piece in PIECES}


def measure_loop_overhead(rig: Rig) -> float:
    """Return the seconds that the loop spends on hooks around one step.

    Observers, which would show or write something, are left out.
    """
    taken = []
    with rig.open_run() as run:
        place = {"run": run, "stage": rig.stage, "state": rig.state}
        for _ in range(1 + PASSES):
            # What the loop does between two updates; see `training.loop`.
            began = time.perf_counter()
            if rig.alphas:
                rig.ask_alphas()
            rig.state.means.add(rig.losses)
            run.hooks.call("after_step", losses=average_each(rig.losses), **place)
            run.hooks.ask("should_advance", **place)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _measure_pieces(rig: Rig, update: int, penalised: bool) -> dict[str, float]:
    """Return the median seconds of the pieces of an iteration; its first pass is not counted."""
    passes = [_time_step(rig, update, penalised) for _ in range(1 + PASSES)]
    counted = passes[1:]
    return {piece: statistics.median(each[piece] for each in counted) for piece in PIECES}


def _time_step(rig: Rig, update: int, penalised: bool) -> dict[str, float]:
    """Run one iteration, with or without its penalties, and return the seconds of its pieces."""
    watch = Stopwatch(rig.state.device)

    class TimedStep(UpdateContext):
        def reals(self) -> Reals:
            return watch.time("data", super().reals)

        def latents(self, stream: str, count: int | None = None) -> Tensor:
            return watch.time("data", super().latents, stream, count)

        def uniform(self, stream: str) -> Tensor:
            return watch.time("data", super().uniform, stream)

        def due(self, penalties: Sequence[Penalty]) -> tuple[DuePenalty, ...]:
            return super().due(penalties) if penalised else ()

        def minimise(self, optimizer: str, net: str, *args: Any, **kwargs: Any) -> Any:
            before = watch.pieces["optimizer"]
            with _timed_optimizer(rig.state.optimizers[optimizer], watch):
                result = watch.time(net, super().minimise, optimizer, net, *args, **kwargs)
            # The optimizer's time is a piece of its own.
            watch.pieces[net] -= watch.pieces["optimizer"] - before
            return result

    rig.set_clock(update)
    context = TimedStep(rig.experiment, rig.state, rig.stage, rig.sampler, rig.alphas)
    rig.losses = rig.experiment.update.step(context)
    rig.state.images += context.drawn
    watch.time("optimizer", rig.state.update_averages, context.drawn)
    return watch.pieces


@contextlib.contextmanager
def _timed_optimizer(optimizer: torch.optim.Optimizer, watch: Stopwatch) -> Iterator[None]:
    """Time the steps of an optimizer while entered."""
    step = optimizer.step
    # An attribute of the object hides the method of its class until it is deleted.
    optimizer.step = lambda *args, **kwargs: watch.time("optimizer", step, *args, **kwargs)  # type: ignore
    try:
        yield
    finally:
        del optimizer.step
