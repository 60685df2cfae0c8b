"""Measure what a stage costs: seconds of an image, of a tick and of what is done at it."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from pggan_kit.api.prepare import Prepared
from pggan_kit.benchmarking.breakdown import measure_loop_overhead
from pggan_kit.benchmarking.evaluation_time import EvaluationTime
from pggan_kit.benchmarking.observer_times import ObserverTime, measure_observers
from pggan_kit.benchmarking.rig import Rig, has_fade
from pggan_kit.benchmarking.storage import count_tensor_bytes
from pggan_kit.benchmarking.timing import time_calls
from pggan_kit.errors import TrainingError, first_line
from pggan_kit.experiment import NOTHING, Experiment
from pggan_kit.runs.host_copies import choose_copier
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.devices import computes_bfloat16, prepare_device
from pggan_kit.ticks import Tick
from pggan_kit.training.measures import measure_diversity
from pggan_kit.training.out_of_memory import is_out_of_memory

TIMED = 3
"""Number of iterations of a kind, of which the median counts."""

LONG_TICK_SECONDS = 2.0
"""Seconds of measuring ticks after which no further one is measured."""


@dataclass(frozen=True)
class Cost:
    """What a stage costs.

    Attributes:
        fading: Seconds of an image in the stage's fade.
        steady: Seconds of an image after it.
        tick: Seconds of a tick, at which the state is copied.
        checkpoint: Seconds in which a thread writes a checkpoint.
        diversity: Seconds of measuring the diversity of images.
        checkpoint_mib: MiB of a checkpoint.
        kept_mib: MiB of what is kept for good of one.
        observers: Seconds of observers.
        evaluation: Seconds of measuring `train.metrics`.
    """

    fading: float
    steady: float
    tick: float
    checkpoint: float
    diversity: float
    checkpoint_mib: float
    kept_mib: float
    observers: Sequence[ObserverTime] = ()
    evaluation: EvaluationTime = field(default_factory=EvaluationTime)

    def scale(self, operations: float, weights: float) -> Cost:
        """Return the cost of a stage with `operations` times as many operations an image, and `weights` times as many
        weights."""
        return Cost(
            fading=self.fading * operations,
            steady=self.steady * operations,
            tick=self.tick * weights,
            checkpoint=self.checkpoint * weights,
            diversity=self.diversity * operations,
            checkpoint_mib=self.checkpoint_mib * weights,
            kept_mib=self.kept_mib * weights,
            observers=[observer.scale(operations) for observer in self.observers],
            # Most metrics reduce or enlarge images to one size before they describe them.
            evaluation=replace(self.evaluation, drawing=self.evaluation.drawing * operations),
        )

    def sum_parts(
        self, experiment: Experiment, ticks: Sequence[Tick], checkpoints: int, updates: float
    ) -> dict[str, float]:
        """Return the seconds of what is done beside updates in a stage, by its name in `Timing/share/*`.

        Args:
            experiment: The experiment.
            ticks: The ticks of the stage.
            checkpoints: Number of checkpoints that are written in it.
            updates: Seconds of its updates.
        """
        # A checkpoint is written while the steps up to the next tick are taken, and the rest of it is waited for. That
        # before the first step is waited for whole.
        at_ticks = sum(tick.is_due(experiment.checkpoint_every) for tick in ticks)
        waited = 0.0
        if ticks:
            waited = max(0.0, self.checkpoint - updates / len(ticks))
        waited_for_checkpoints = at_ticks * waited + max(0, checkpoints - at_ticks) * self.checkpoint
        measurements = sum(tick.is_due(experiment.diversity_every) for tick in ticks)
        evaluations = sum(tick.is_due(experiment.evaluation.every) for tick in ticks)
        parts = {
            "checkpoints": len(ticks) * self.tick + waited_for_checkpoints,
            "diversity": measurements * self.diversity,
            "metrics": evaluations * self.evaluation.seconds,
        }
        for observer in self.observers:
            parts[observer.name] = parts.get(observer.name, 0.0) + observer.sum_seconds(ticks)
        return parts


class Budget:
    """The time that is left for measuring, and the price of a stage.

    Args:
        seconds: The time that there is for all stages.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.seconds_per_work = 0.0

    def allows(self, work: float) -> bool:
        """Return whether there is time for a stage of so much work, at the price of the last."""
        return self.seconds_per_work * work <= self.seconds

    def spend(self, seconds: float, work: float) -> None:
        """Subtract the time that measuring a stage of so much work took."""
        self.seconds -= seconds
        self.seconds_per_work = seconds / work


def measure_stage(prepared: Prepared, steady: Rig, budget: Budget, work: float) -> Cost:
    """Return the cost of a stage, and subtract from the budget what measuring it took."""
    began = time.perf_counter()
    steady.step()
    steady_seconds = measure_seconds_an_image(steady)
    fading_seconds = steady_seconds
    if has_fade(prepared, steady.schedule, steady.stage):
        fading = Rig(prepared, steady.schedule, steady.stage.index, fading=True, compiles=False)
        fading.step()
        fading_seconds = measure_seconds_an_image(fading)
    cost = Cost(fading_seconds, steady_seconds, **_measure_tick(steady), observers=measure_observers(steady, prepared))
    budget.spend(time.perf_counter() - began, work)
    return cost


def measure_bfloat16(prepared: Prepared, schedule: Schedule, stage: Stage, budget: Budget, work: float) -> float | None:
    """Return the images per second of a measured stage in bfloat16; None where it would not be native, or is chosen."""
    experiment = prepared.built.experiment
    device = prepare_device(experiment.device, experiment.tf32, experiment.deterministic)
    if experiment.precision != "float32" or not computes_bfloat16(device) or not budget.allows(work):
        return None

    in_bfloat16 = replace(prepared, built=replace(prepared.built, experiment=replace(experiment, precision="bfloat16")))
    try:
        rig = build_rig(in_bfloat16, schedule, stage)
        rig.step()
        return 1 / measure_seconds_an_image(rig)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def measure_seconds_an_image(rig: Rig) -> float:
    """Return a mean over the kinds of iteration that lazy penalties make, with what the loop does around each."""
    total = measure_loop_overhead(rig)
    for share, update in rig.list_kinds():
        step = functools.partial(rig.step, update)
        rig.settle(update)
        total += share * statistics.median(time_calls(step, rig.state.device) for _ in range(TIMED))
    return total / rig.batch


def _measure_tick(rig: Rig) -> dict[str, Any]:
    """Return what the loop itself does at a tick, as `Cost` names it: seconds, and the sizes of checkpoints.

    Seconds are the median of a few, since a disk may be busy for a moment; fewer where a single one takes long.
    """
    # The moments between the parts of each tick.
    taken: dict[str, list[float]] = {"tick": [], "checkpoint": [], "diversity": []}
    spent = 0.0
    copier = choose_copier(rig.state.device)
    with rig.open_run() as run:
        while len(taken["tick"]) < TIMED and spent < LONG_TICK_SECONDS:
            moments = [time.perf_counter()]
            snapshot = rig.state.take_snapshot().begin_copy(copier).wait()
            moments.append(time.perf_counter())
            run.checkpoints.save(snapshot)
            moments.append(time.perf_counter())
            if rig.experiment.collapse_below > 0:
                measure_diversity(run, rig.sampler)
            moments.append(time.perf_counter())
            for name, (begin, end) in zip(taken, pairwise(moments), strict=True):
                taken[name].append(end - begin)
            spent += moments[-1] - moments[0]

    # What is written at each checkpoint, and what of the last of a stage is kept for good.
    kept = 0
    if rig.experiment.keep_stages != NOTHING:
        kept = count_tensor_bytes(snapshot.reduce(rig.experiment.keep_stages).content())
    return {
        **{name: statistics.median(seconds) for name, seconds in taken.items()},
        "checkpoint_mib": count_tensor_bytes(snapshot.content()) / 2**20,
        "kept_mib": kept / 2**20,
    }


def build_rig(prepared: Prepared, schedule: Schedule, stage: Stage) -> Rig:
    """Return a steady stage to be measured.

    Raises:
        TrainingError: There is no memory for its weights.
    """
    try:
        return Rig(prepared, schedule, stage.index, fading=False, compiles=False)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory ends at {stage.size}, before its first step: choose narrower networks ({first_line(error)})"
        ) from error
