"""Where an iteration's time goes, from a separate pass that waits for the device around each piece."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from pggan_kit.benchmarking.rig import Rig
from pggan_kit.components import Penalty, Reals
from pggan_kit.training.step import TrainingStep, mean_of_each

T = TypeVar("T")

PASSES = 5
PIECES = ("data", "discriminator", "penalty", "generator", "optimizer", "hooks")


class Stopwatch:
    """Seconds by piece."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pieces: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """The time, when all that was asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def time(self, piece: str, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What the work returns; its seconds go to a piece."""
        began = self.now()
        result = work(*args, **kwargs)
        self.pieces[piece] += self.now() - began
        return result


def shares(rig: Rig) -> dict[str, float]:
    """The share of each of `PIECES` in an iteration, as a mean over lazy penalties' period; of code not compiled.

    `data`: drawing reals and latents. `penalty`: what an update of D takes longer for its penalties. `optimizer`: with
    the generator's average. `hooks`: see `seconds_around`.
    """
    total: dict[str, float] = defaultdict(float)
    for share, update in rig.kinds():
        pieces, without = (_pieces(rig, update, penalised) for penalised in (True, False))
        pieces["penalty"] = max(0.0, pieces["discriminator"] - without["discriminator"])
        pieces["discriminator"] -= pieces["penalty"]
        for piece, taken in pieces.items():
            total[piece] += share * taken
    total["hooks"] = seconds_around(rig)
    whole = sum(total.values())
    return {piece: total[piece] / whole for piece in PIECES}


def seconds_around(rig: Rig) -> float:
    """Of what the loop asks and tells around one step. Observers, which would show or write something, are left out."""
    taken = []
    with rig.run() as run:
        told = {"run": run, "stage": rig.stage, "state": rig.state}
        for _ in range(PASSES + 1):
            began = time.perf_counter()
            if rig.alphas:
                rig.ask_alphas()
            rig.state.means.add(rig.losses)
            run.hooks.call("after_step", losses=mean_of_each(rig.losses), **told)
            run.hooks.ask("should_advance", **told)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def _pieces(rig: Rig, update: int, penalised: bool) -> dict[str, float]:
    """Median seconds of the pieces of an iteration; its first pass is not counted."""
    passes = [_watched_step(rig, update, penalised) for _ in range(PASSES + 1)][1:]
    return {piece: statistics.median(each[piece] for each in passes) for piece in PIECES}


def _watched_step(rig: Rig, update: int, penalised: bool) -> dict[str, float]:
    watch = Stopwatch(rig.state.device)

    class Watched(TrainingStep):
        def reals(self) -> Reals:
            return watch.time("data", super().reals)

        def latents(self, stream: str, count: int | None = None) -> Tensor:
            return watch.time("data", super().latents, stream, count)

        def uniform(self, stream: str) -> Tensor:
            return watch.time("data", super().uniform, stream)

        def due(self, penalties: Sequence[Penalty]) -> tuple[Penalty, ...]:
            return super().due(penalties) if penalised else ()

        def minimise(self, optimizer: str, net: str, *args: Any, **kwargs: Any) -> Any:
            chosen, before = rig.state.optimizers[optimizer], watch.pieces["optimizer"]
            step = chosen.step
            chosen.step = lambda *a, **k: watch.time("optimizer", step, *a, **k)  # type: ignore
            try:
                result = watch.time(net, super().minimise, optimizer, net, *args, **kwargs)
            finally:
                del chosen.step  # the class's own again
            watch.pieces[net] -= watch.pieces["optimizer"] - before
            return result

    rig.place(update)
    ctx = Watched(rig.experiment, rig.state, rig.stage, rig.sampler, rig.alphas)
    rig.losses = rig.experiment.update.step(ctx)
    rig.state.images += ctx.drawn
    watch.time("optimizer", rig.state.follow, ctx.drawn)
    return watch.pieces
