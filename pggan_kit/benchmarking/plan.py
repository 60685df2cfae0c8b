"""Say what an experiment will cost, stage by stage, before it is trained."""

from __future__ import annotations

import functools
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.table import Table

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.benchmarking.activations import count_activations_mib, measure_activations_mib
from pggan_kit.benchmarking.breakdown import measure_loop_overhead
from pggan_kit.benchmarking.evaluation_time import EvaluationTime, measure_evaluation
from pggan_kit.benchmarking.flops import count_forward_calls, sum_flops
from pggan_kit.benchmarking.observer_times import ObserverTime, list_unmeasured, measure_observers
from pggan_kit.benchmarking.rig import Rig, has_fade
from pggan_kit.benchmarking.storage import (
    CheckpointCounts,
    count_checkpoints,
    count_tensor_bytes,
    estimate_files,
    list_ticks_by_stage,
)
from pggan_kit.benchmarking.timing import time_calls
from pggan_kit.components import Average
from pggan_kit.data.build_estimate import estimate_build
from pggan_kit.data.cached_copies import format_size
from pggan_kit.errors import TrainingError, first_line
from pggan_kit.experiment import NOTHING, Experiment
from pggan_kit.growth.averages import PowerAverage, list_names
from pggan_kit.growth.learning import list_planned_parts
from pggan_kit.growth.moving_settings import list_moving_settings
from pggan_kit.runs.average import AverageAge, format_percent, list_average_ages
from pggan_kit.runs.average_snapshots import compute_interval
from pggan_kit.runs.host_copies import choose_copier
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage, value_at
from pggan_kit.system import distributed
from pggan_kit.system.activities import track_items
from pggan_kit.system.devices import computes_bfloat16, prepare_device, read_memory_mib
from pggan_kit.ticks import Tick
from pggan_kit.training.batch_statistics import list_batch_statistics, list_trained_stages
from pggan_kit.training.compiler import compiling_pays, count_steps
from pggan_kit.training.measures import measure_diversity
from pggan_kit.training.out_of_memory import is_out_of_memory

MEASURING_SECONDS = 60.0
"""Seconds for measuring all stages together; stages that would take longer are extrapolated."""

TIMED = 3
"""Number of iterations of a kind, of which the median counts."""

LONG_TICK_SECONDS = 2.0
"""Seconds of measuring ticks after which no further one is measured."""

COPIES = 4
"""Tensors of the size of a network's weights: weights, gradients and Adam's two moments. G has its averages besides."""

LARGE_SHARE = 0.05
"""Share of a run's time that what is done beside updates may take before there is a warning."""

SMALL_SHARE = 0.005
"""Share of a run's time from which on a part of it is named in a warning."""

INTERVALS = {
    "checkpoints": "train.checkpoint_every",
    "diversity": "train.diversity_every",
    "metrics": "evaluation.every",
}
"""Settings by which the parts are done less often; an observer's is its `every`."""

COSTS_OF_TIME = (
    *("fade_images_per_second", "images_per_second", "hours"),
    *("checkpoints", "checkpoint_mib", "outside", "outside_share"),
)
"""Entries of a row that are None where the cost of a stage is unknown."""

COPIES_TO_LEARN = 3
"""Those of them that frozen weights do not need: gradients and moments."""


def plan(
    config: str | Path, bindings: Sequence[str] = (), plugins: Sequence[Any] = (), *, with_metrics: bool = True
) -> list[dict[str, Any]]:
    """Return the cost of each stage of an experiment; nothing is trained and no run directory is made.

    Times are of real iterations on noise, on this machine and device, steady and mid-fade, not compiled; and of what
    the loop does around them and at ticks: checkpoints, diversity, `train.metrics`, and the observers that have
    `estimate_bytes`, in a temporary folder. Stages too large to be measured in `MEASURING_SECONDS` are extrapolated
    from the largest measured one, as if they took as long for each floating-point operation of both networks' forward
    passes; their rows say so. Activations are counted on fake tensors, which take no memory: a stage that does not fit
    is not run, and so is extrapolated, too.

    Args:
        config: See `api.prepare`.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.
        with_metrics: Whether `train.metrics` are measured and counted.

    Returns:
        A row for each stage: `stage`, `size`, `discriminator_size`, `batch_size`, `fade_images`, `stable_images`,
        `steps`, `generator_parameters`, `discriminator_parameters`, `encoder_parameters` (0 without an encoder),
        `weights_mib` (weights, gradients, average and Adam's moments), `activations_mib` (what an iteration takes at
        most beside them, without the work space of a device's libraries; None where a component needs the content of
        tensors and the stage is not measured), `gflops` (one image forward through all networks), `images_per_second`
        (steady) and `fade_images_per_second`, `bfloat16_images_per_second` (steady, with `train.precision`
        `'bfloat16'`, at the last stage that is measured, where the experiment computes in float32 and the device
        multiplies bfloat16 natively; None elsewhere), `hours`, `measured`, `checkpoints` (their number) and
        `checkpoint_mib` (the size of one), `written_mib` (what checkpoints, averages and observers write in the stage)
        and `kept_mib` (what is left of it when the run has ended), `outside` (the share of the stage's time that each
        part beside updates takes, by its name in `Timing/share/*`), `outside_share` (their sum) and `unmeasured` (the
        observers that are not among them); speeds, hours, sizes of files and shares are None where no stage up to here
        fits. `fits` (whether weights and activations are less than the device's memory, and the stage did not run
        out of it when it was measured; None where unknown), `micro_batch` (what to bind `train.micro_batch` to where
        they are not; None elsewhere, or where not even one row fits), `compiled` (the phases that `train.compile`
        compiles), `batch_statistics` (over how many samples each statistic of a batch is computed, by its name),
        `growth` (for each part of the stage in which other pieces are frozen, the clock at its begin as `images` and
        the pieces that do not learn at their optimizer's rate as `text`; empty without `train.growth`),
        `average_before_stage` and `average_before_fade_end` (the share of the averaged generator's weight, at the
        stage's end, that stems from before the stage and from before its fade's end, of the first average; None where
        the stage spends no images or has no fade), `averages_before_stage` (the former of each average, by name),
        `snapshots_mib` (what is kept of power-function averages in the stage), `copies_mib` (the resized copies of the
        data at this size, on disk) and `copies_hours` (its share, by bytes, of the time that making them takes, unless
        they are in the cache already; an estimate from a few images). Warnings name statistics over one sample,
        averages that remember too much, and more than 5 % of the time beside updates.

    Raises:
        UserError: The config is wrong, or this platform does not tell how much memory there is.
        TrainingError: There is no memory for the weights of a stage.
    """
    prepared = prepare(config, bindings, plugins)
    experiment = prepared.built.experiment
    schedule = prepared.schedule()
    budget = Budget(MEASURING_SECONDS)
    ages = list_average_ages(experiment, schedule, [0])
    _warn_of_old_averages(ages)
    for line in prepared.list_warnings(schedule):
        warnings.warn(line, stacklevel=2)

    copies = _estimate_copies(experiment, schedule.stages)
    ticks = list_ticks_by_stage(schedule, experiment.tick)
    fading = {stage.index for stage in schedule.stages if has_fade(prepared, schedule, stage)}
    checkpoints = count_checkpoints(experiment, ticks, fading)

    rows: list[dict[str, Any]] = []
    largest: tuple[Cost, dict[str, Any]] | None = None
    for stage in track_items(schedule.stages, "measuring", len(schedule.stages), "stages"):
        # Describe and count before anything that may need too much memory is run.
        rig = _build_rig(prepared, schedule, stage)
        row = _describe_stage(stage, schedule, rig.state)
        room = read_memory_mib(rig.state.device) - row["weights_mib"]
        row |= _describe_fit(count_activations_mib(rig), room, rig)
        del rig
        row["compiled"] = _list_compiled_phases(prepared, stage, schedule)
        row["batch_statistics"] = _list_group_sizes(prepared, stage, schedule)
        row["growth"] = _list_learning_parts(prepared, stage, schedule)
        row |= _describe_average([age for age in ages if age.stage == stage])
        row["moving_settings"] = _list_values_of_moving_settings(prepared, stage, schedule)
        row |= copies[stage.index]
        row["snapshots_mib"] = _compute_snapshots_mib(experiment.averages, schedule, row)

        # Measure the stage if it fits and there is time, else extrapolate from the last that was measured.
        cost = None
        if row["fits"] is not False and (largest is None or budget.allows(_get_work(row))):
            cost = _measure_if_it_fits(prepared, schedule, stage, row, room, budget)
            if cost is not None and with_metrics:
                cost = replace(cost, evaluation=measure_evaluation(prepared, schedule, stage))
        if cost is not None:
            largest = (cost, row)
        row["measured"] = cost is not None
        if cost is None and largest is not None:
            measured_cost, measured_row = largest
            operations = row["gflops"] / measured_row["gflops"]
            weights = row["weights_mib"] / measured_row["weights_mib"]
            cost = measured_cost.scale(operations, weights)
        row |= _describe_time(row, cost, experiment, ticks[stage.index], checkpoints[stage.index])
        row |= _describe_files(row, cost, experiment, ticks, checkpoints[stage.index])
        row["unmeasured"] = list_unmeasured(experiment.observers)
        rows.append(row)
    if largest is not None:
        _, row = largest
        row["bfloat16_images_per_second"] = _measure_bfloat16(prepared, schedule, row, budget)
    _warn_of_large_share(rows)
    return rows


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


COLUMNS = (
    *("stage", "size", "batch", "fade", "stable", "steps", "G", "D", "weights", "act.", "fits"),
    *("img/s fading", "img/s", "time"),
)


def build_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the rows of `plan` as a table."""
    shown = Table(*COLUMNS)
    for column in shown.columns[2:]:
        column.justify = "right"
    for row in rows:
        shown.add_row(*_format_cells(row))
    shown.title = "G, D: parameters; weights: with gradients, average and moments; act.: what a step adds (MiB)"
    shown.caption = _build_caption(rows)
    return shown


def _format_cells(row: dict[str, Any]) -> list[str]:
    size = row["size"]
    if row["discriminator_size"] != size:
        size += f", D {row['discriminator_size']}"
    cells = [str(row["stage"]), size, str(row["batch_size"])]
    for name in ("fade_images", "stable_images", "steps", "generator_parameters", "discriminator_parameters"):
        cells.append(format_count(row[name]))
    if row["encoder_parameters"]:
        cells[-1] += f", E {format_count(row['encoder_parameters'])}"

    # Memory.
    activations = row["activations_mib"]
    cells.append(f"{row['weights_mib']:.0f}")
    cells.append("?" if activations is None else f"{activations:.0f}")
    if row["micro_batch"] is not None:
        cells.append(f"with micro_batch {row['micro_batch']}")
    else:
        cells.append({True: "yes", False: "no", None: "?"}[row["fits"]])

    # Time.
    if row["hours"] is None:
        return [*cells, "", "?", "?"]
    cells.append(f"{row['fade_images_per_second']:.3g}" if row["fade_images"] else "")
    cells.append(f"{row['images_per_second']:.3g}")
    extrapolated = "" if row["measured"] else " (extrapolated)"
    cells.append(format_duration(row["hours"] * 3600) + extrapolated)
    return cells


def _build_caption(rows: Sequence[dict[str, Any]]) -> str:
    """Return totals, what is compiled, how old the average will be, and the groups of statistics, a line each."""
    known = [row["hours"] for row in rows if row["hours"] is not None]
    duration = format_duration(sum(known) * 3600)
    if not known:
        duration = "an unknown time"
    elif len(known) < len(rows):
        duration += f" beside {', '.join(row['size'] for row in rows if row['hours'] is None)}"
    images = sum(row["fade_images"] + row["stable_images"] for row in rows)
    total = f"{images:,} images, about {duration} on this machine"
    compiled = [f"{row['size']} ({' and '.join(row['compiled'])})" for row in rows if row["compiled"]]
    if compiled:
        total += f"; less, as train.compile compiles {', '.join(compiled)}"

    return "\n".join(
        [
            total,
            *_describe_bfloat16(rows),
            *_describe_memory(rows),
            _describe_copies(rows),
            *_describe_storage(rows),
            *_describe_averages(rows),
            *_describe_moving_settings(rows),
            *_describe_groups(rows),
            *_describe_learning(rows),
        ]
    )


def _describe_bfloat16(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line on what bfloat16 would save, where it was measured and is faster."""
    lines = []
    for row in rows:
        rate = row["bfloat16_images_per_second"]
        if rate is not None and rate > row["images_per_second"]:
            hours = sum(each["hours"] or 0.0 for each in rows) * row["images_per_second"] / rate
            duration = format_duration(hours * 3600)
            lines.append(
                f"this device multiplies bfloat16 natively: with train.precision = 'auto' it is {rate:.3g} img/s "
                f"instead of {row['images_per_second']:.3g} at {row['size']}, and about {duration} in all if the other "
                "stages gain as much"
            )
    return lines


def _describe_memory(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each stage that does not fit: `memory ends at 64x64 with a batch of 16: ...`."""
    lines = []
    for row in rows:
        if row["fits"] is False:
            advice = f"bind train.micro_batch = {row['micro_batch']}"
            if row["micro_batch"] is None:
                advice = "choose narrower networks, smaller images or a smaller batch"
            lines.append(f"memory ends at {row['size']} with a batch of {row['batch_size']}: {advice}")
    return lines


def _describe_copies(rows: Sequence[dict[str, Any]]) -> str:
    """Return a line about the resized copies of the data."""
    size = format_size(int(sum(row["copies_mib"] for row in rows) * 2**20))
    duration = format_duration(sum(row["copies_hours"] for row in rows) * 3600)
    return f"resized copies of the data: {size} on disk; making them, where they are not there yet, takes {duration}"


def _describe_storage(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line about what the run writes, and one about the time beside updates, where each cost is known."""
    if any(row["written_mib"] is None for row in rows):
        return []
    written = format_size(int(sum(row["written_mib"] for row in rows) * 2**20))
    kept = format_size(int(sum(row["kept_mib"] for row in rows) * 2**20))
    count = sum(row["checkpoints"] for row in rows)
    largest = format_size(int(rows[-1]["checkpoint_mib"] * 2**20))
    lines = [f"the run's folder: {written} written, {kept} kept; {count} checkpoints of up to {largest}"]

    parts = _compute_outside_shares(rows)
    listed = ", ".join(f"{name} {format_percent(share)}" for name, share in parts.items())
    line = f"outside updates: {format_percent(sum(parts.values()))} of the time"
    if listed:
        line += f" ({listed})"
    if rows[0]["unmeasured"]:
        line += f"; not measured: {', '.join(rows[0]['unmeasured'])}"
    return [*lines, line]


def _compute_outside_shares(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the share of the run's time that goes to each part beside updates, the largest first."""
    known = [row for row in rows if row["hours"] is not None]
    total = sum(row["hours"] for row in known)
    parts: dict[str, float] = {}
    for row in known:
        for name, share in row["outside"].items():
            if share > 0:
                parts[name] = parts.get(name, 0.0) + share * row["hours"] / total
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def _warn_of_large_share(rows: Sequence[dict[str, Any]]) -> None:
    parts = _compute_outside_shares(rows)
    share = sum(parts.values())
    if share <= LARGE_SHARE:
        return
    large = [name for name, part in parts.items() if part >= SMALL_SHARE]
    listed = ", ".join(f"{name} {format_percent(parts[name])}" for name in large)
    settings = ", ".join(INTERVALS.get(name, f"observers.{name}.every") for name in large)
    warnings.warn(
        f"{format_percent(share)} of the time is spent outside updates ({listed}): raise {settings} or train.tick",
        stacklevel=3,
    )


def _describe_averages(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each average with its age at each stage's end, and one with the size of what is kept."""
    shares: dict[str, list[str]] = {}
    for row in rows:
        for name, share in row["averages_before_stage"].items():
            shares.setdefault(name, []).append(f"{format_percent(share)} at {row['size']}")

    lines = []
    for name, old in shares.items():
        lines.append(f"share of G's average {name}, at the stage's end, from before the stage: {', '.join(old)}")
    kept = sum(row["snapshots_mib"] for row in rows)
    if kept:
        lines.append(f"snapshots of averages for other widths: {kept:,.3g} MiB in the run's folder at its end")
    return lines


def _describe_moving_settings(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each setting that moves: `train.loss.penalties.0.weight: 10 -> 8 at 4x4, 8 -> 1 at 8x8`."""
    stages: dict[str, list[str]] = {}
    for row in rows:
        for name, (begin, end) in row["moving_settings"].items():
            texts = dict.fromkeys((f"{begin:.3g}", f"{end:.3g}"))
            value = " -> ".join(texts)
            stages.setdefault(name, []).append(f"{value} at {row['size']}")
    return [f"{name}: {', '.join(values)}" for name, values in stages.items()]


def _describe_groups(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each statistic of a batch: `... compares 4 samples (4x4, 8x8), 2 (16x16)`."""
    sizes: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        for name, group in row["batch_statistics"].items():
            sizes.setdefault(name, {}).setdefault(group, []).append(row["size"])

    lines = []
    for name, groups in sizes.items():
        described = [f"{group} ({', '.join(where)})" for group, where in groups.items()]
        described[0] = described[0].replace(" (", " samples (", 1)
        lines.append(f"{name} compares {', '.join(described)}")
    return lines


def _describe_learning(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a line for each stage in which something does not learn at its optimizer's rate."""
    lines = []
    for row in rows:
        parts = [f"{part['text'] or 'everything learns'} from images {part['images']:,}" for part in row["growth"]]
        if any(part["text"] for part in row["growth"]):
            lines.append(f"learning at {row['size']}: {'; then '.join(parts)}")
    return lines


def format_count(count: int) -> str:
    """Return a count in short: `950`, `12.8k`, `23.1M`."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g}{unit}"
    return str(count)


def format_duration(seconds: float) -> str:
    """Return a duration in short: `45 s`, `12 min`, `3.4 h` or `5.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} days"


def _describe_stage(stage: Stage, schedule: Schedule, state: TrainState) -> dict[str, Any]:
    """Return what a row says before anything is measured."""
    # The last stage is lengthened or cut to the total.
    stable = stage.stable_images
    if stage.index == len(schedule.stages) - 1:
        before = sum(each.budget for each in schedule.stages[:-1])
        stable = max(0, schedule.total - before - stage.fade_images)

    generator = sum(param.numel() for param in state.generator.parameters())
    discriminator = sum(param.numel() for param in state.discriminator.parameters())
    encoder = 0
    if state.encoder is not None:
        encoder = sum(param.numel() for param in state.encoder.parameters())
    averages = len(list_names(state.experiment.averages))
    learning = [param for net in state.networks.values() for param in net.learning_weights()]
    readers = discriminator + encoder
    frozen = generator + readers - sum(param.numel() for param in learning)
    weights = (COPIES + averages) * generator + COPIES * readers - COPIES_TO_LEARN * frozen
    return {
        "stage": stage.index,
        "size": stage.size,
        "discriminator_size": stage.of("discriminator").size,
        "batch_size": stage.batch_size,
        "fade_images": stage.fade_images,
        "stable_images": stable,
        "steps": -(-(stage.fade_images + stable) // stage.batch_size),
        "generator_parameters": generator,
        "discriminator_parameters": discriminator,
        "encoder_parameters": encoder,
        "weights_mib": weights * 4 / 2**20,
        "bfloat16_images_per_second": None,
        "gflops": sum_flops(count_forward_calls(state, stage)) / 1e9,
    }


def _list_group_sizes(prepared: Prepared, stage: Stage, schedule: Schedule) -> dict[str, int]:
    """Return over how many samples each statistic of a batch is computed, by its name."""
    if stage not in list_trained_stages(schedule):
        return {}
    rows = stage.batch_size // distributed.world_size()
    statistics = list_batch_statistics(prepared.built.experiment, stage, rows)
    return {f"the {statistic.net}'s {statistic.name}": statistic.group for statistic in statistics}


def _list_learning_parts(prepared: Prepared, stage: Stage, schedule: Schedule) -> list[dict[str, Any]]:
    """Return the parts of a stage in which other pieces are frozen, with a description of each."""
    experiment = prepared.built.experiment
    parts = list_planned_parts(experiment.growth, schedule, stage, experiment.nets)
    return [{"images": part.begin, "text": part.text} for part in parts]


def _list_compiled_phases(prepared: Prepared, stage: Stage, schedule: Schedule) -> list[str]:
    """Return the phases of a stage that `train.compile` compiles."""
    setting = prepared.built.experiment.compile
    starts = schedule.planned_starts()[: stage.index + 1]
    images = schedule.end(starts) - starts[-1]
    phases = []
    for phase in (FADE, STABLE):
        steps = count_steps(stage, phase, images)
        if steps > 0 and compiling_pays(setting, steps):
            phases.append(phase)
    return phases


def _list_values_of_moving_settings(prepared: Prepared, stage: Stage, schedule: Schedule) -> dict[str, list[float]]:
    """Return the values that moving settings have where a stage begins and where it ends, by name."""
    components = {path: component for path, (_, component) in prepared.built.components.items()}
    starts = schedule.planned_starts()[: stage.index + 1]
    places = [schedule.at(images, starts) for images in (starts[-1], schedule.end(starts))]
    values: dict[str, list[float]] = {}
    for name, setting in list_moving_settings(components).items():
        values[name] = [value_at(setting, place) for place in places]
    return values


def _warn_of_old_averages(ages: Sequence[AverageAge]) -> None:
    for age in ages:
        if age.warning is not None:
            warnings.warn(age.warning, stacklevel=3)


def _describe_average(ages: Sequence[AverageAge]) -> dict[str, Any]:
    """Return how old the averages will be at the end of a stage, of which the first is the generator's."""
    row: dict[str, Any] = {"average_before_stage": None, "average_before_fade_end": None}
    if ages:
        row = {"average_before_stage": ages[0].before_stage, "average_before_fade_end": ages[0].before_fade_end}
    row["averages_before_stage"] = {age.name: age.before_stage for age in ages}
    return row


def _estimate_copies(experiment: Experiment, stages: Sequence[Stage]) -> dict[int, dict[str, float]]:
    """Return the MiB on disk and the hours of making them, by stage; stages of equal sizes share their copies."""
    sizes = [(stage.height, stage.width) for stage in stages]
    estimate = estimate_build(experiment.dataset, experiment.data, sizes)
    total = sum(estimate.bytes.values())
    left = dict(estimate.bytes)
    copies = {}
    for stage, size in zip(stages, sizes, strict=True):
        own = left.pop(size, 0)
        hours = estimate.seconds / 3600 * own / total
        copies[stage.index] = {"copies_mib": own / 2**20, "copies_hours": hours}
    return copies


def _compute_snapshots_mib(averages: Sequence[Average], schedule: Schedule, row: Mapping[str, Any]) -> float:
    """Return the size of what is kept of power-function averages in a stage that spends its budget."""
    start = schedule.planned_starts()[row["stage"]]
    end = start + row["fade_images"] + row["stable_images"]
    kept = 0
    for average in averages:
        if isinstance(average, PowerAverage):
            interval = compute_interval(average, schedule.total)
            kept += len(average.names) * (end // interval - start // interval)
    return float(kept * row["generator_parameters"] * 4 / 2**20)


def _measure_stage(prepared: Prepared, steady: Rig, budget: Budget, work: float) -> Cost:
    """Return the cost of a stage, and subtract from the budget what measuring it took."""
    began = time.perf_counter()
    steady.step()
    steady_seconds = _measure_seconds_an_image(steady)
    fading_seconds = steady_seconds
    if has_fade(prepared, steady.schedule, steady.stage):
        fading = Rig(prepared, steady.schedule, steady.stage.index, fading=True, compiles=False)
        fading.step()
        fading_seconds = _measure_seconds_an_image(fading)
    cost = Cost(fading_seconds, steady_seconds, **_measure_tick(steady), observers=measure_observers(steady, prepared))
    budget.spend(time.perf_counter() - began, work)
    return cost


def _measure_bfloat16(prepared: Prepared, schedule: Schedule, row: Mapping[str, Any], budget: Budget) -> float | None:
    """Return the images per second of a measured stage in bfloat16; None where it would not be native, or is chosen."""
    experiment = prepared.built.experiment
    stage = schedule.stages[row["stage"]]
    device = prepare_device(experiment.device, experiment.tf32, experiment.deterministic)
    if experiment.precision != "float32" or not computes_bfloat16(device) or not budget.allows(_get_work(row)):
        return None

    in_bfloat16 = replace(prepared, built=replace(prepared.built, experiment=replace(experiment, precision="bfloat16")))
    try:
        rig = _build_rig(in_bfloat16, schedule, stage)
        rig.step()
        return 1 / _measure_seconds_an_image(rig)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    return None


def _measure_seconds_an_image(rig: Rig) -> float:
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

    kept = 0
    if rig.experiment.keep_stages != NOTHING:
        kept = count_tensor_bytes(snapshot.reduce(rig.experiment.keep_stages).content())
    return {
        **{name: statistics.median(seconds) for name, seconds in taken.items()},
        "checkpoint_mib": count_tensor_bytes(snapshot.content()) / 2**20,
        "kept_mib": kept / 2**20,
    }


def _build_rig(prepared: Prepared, schedule: Schedule, stage: Stage) -> Rig:
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


def _describe_fit(activations: float | None, room: float, rig: Rig) -> dict[str, Any]:
    """Return whether the activations fit, and which micro-batch would.

    Args:
        activations: MiB that the stage takes beside its weights; None where that is unknown.
        room: MiB that the weights leave.
        rig: The stage.
    """
    if activations is None:
        return {"activations_mib": None, "fits": None, "micro_batch": None}
    # Activations grow with the rows that are worked on at once.
    micro_batch = None
    if activations > room:
        micro_batch = find_largest_micro_batch(_count_rows_at_once(rig), activations, room)
    return {"activations_mib": activations, "fits": activations <= room, "micro_batch": micro_batch}


def _measure_if_it_fits(
    prepared: Prepared, schedule: Schedule, stage: Stage, row: dict[str, Any], room: float, budget: Budget
) -> Cost | None:
    """Return the cost of a stage; None where memory is full when it is measured, whatever was counted.

    Args:
        prepared: The experiment.
        schedule: Its stages.
        stage: The stage.
        row: The stage's row, to which is added what is known of its memory.
        room: MiB that the weights leave.
        budget: The time that is left.
    """
    rig = _build_rig(prepared, schedule, stage)
    try:
        if row["activations_mib"] is None:
            row |= _describe_fit(measure_activations_mib(rig), room, rig)
        return _measure_stage(prepared, rig, budget, _get_work(row))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    rows = _count_rows_at_once(rig)
    smaller = [size for size in range(1, rows) if rows % size == 0]
    row |= {"fits": False, "micro_batch": max(smaller, default=None)}
    return None


def _get_work(row: Mapping[str, Any]) -> float:
    """Return the GFLOP of a batch's forward pass, by which a stage's time is guessed."""
    work: float = row["batch_size"] * row["gflops"]
    return work


def _count_rows_at_once(rig: Rig) -> int:
    """Return the rows of a batch that are worked on at once."""
    rows = rig.stage.batch_size
    return rows // rig.experiment.count_micro_batches(rig.stage, rows)


def _describe_time(
    row: dict[str, Any], cost: Cost | None, experiment: Experiment, ticks: Sequence[Tick], checkpoints: CheckpointCounts
) -> dict[str, Any]:
    """Return the speed of a stage, the hours that it takes, and the shares of them beside updates.

    Args:
        row: What is known of the stage.
        cost: Its cost; None where it is unknown.
        experiment: The experiment.
        ticks: Its ticks.
        checkpoints: Its checkpoints.
    """
    if cost is None:
        return dict.fromkeys(COSTS_OF_TIME)
    updates = row["fade_images"] * cost.fading + row["stable_images"] * cost.steady
    parts = cost.sum_parts(experiment, ticks, checkpoints.written, updates)
    outside = sum(parts.values())
    seconds = updates + outside
    return {
        "fade_images_per_second": 1 / cost.fading,
        "images_per_second": 1 / cost.steady,
        "hours": seconds / 3600,
        "checkpoints": checkpoints.written,
        "checkpoint_mib": cost.checkpoint_mib,
        "outside": {name: part / seconds if seconds else 0.0 for name, part in parts.items()},
        "outside_share": outside / seconds if seconds else 0.0,
    }


def _describe_files(
    row: dict[str, Any],
    cost: Cost | None,
    experiment: Experiment,
    ticks: Sequence[Sequence[Tick]],
    checkpoints: CheckpointCounts,
) -> dict[str, Any]:
    """Return the MiB that a stage writes, and those of them that are left when the run has ended.

    Args:
        row: What is known of the stage.
        cost: Its cost; None where it is unknown.
        experiment: The experiment.
        ticks: The ticks of each stage.
        checkpoints: The stage's checkpoints.
    """
    if cost is None:
        return {"written_mib": None, "kept_mib": None}
    parts = checkpoints.parts * cost.kept_mib + row["snapshots_mib"]
    files_written, files_kept = estimate_files(experiment.observers, ticks, row["stage"])
    return {
        "written_mib": checkpoints.written * cost.checkpoint_mib + parts + files_written / 2**20,
        "kept_mib": checkpoints.left * cost.checkpoint_mib + parts + files_kept / 2**20,
    }


def find_largest_micro_batch(rows: int, activations: float, room: float) -> int | None:
    """Return the `micro_batch` to recommend: the largest that divides a batch, and whose activations fit.

    Args:
        rows: Rows of the batch in one process.
        activations: Memory that a whole batch keeps for its backward pass.
        room: Memory that there is for it, in the same unit.

    Returns:
        Rows; `rows` where the whole batch fits, None where not even one row does.
    """
    for size in range(rows, 0, -1):
        if rows % size == 0 and activations * size / rows <= room:
            return size
    return None
