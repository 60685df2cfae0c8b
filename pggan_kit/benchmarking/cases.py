"""Measure all contenders at one stage, steady or mid-fade."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.benchmarking.breakdown import measure_shares
from pggan_kit.benchmarking.contenders import Foreign, Variant
from pggan_kit.benchmarking.flops import Call, Counts, count_kinds, sum_flops
from pggan_kit.benchmarking.kernels import Record, profile_kinds
from pggan_kit.benchmarking.power import ReadWatts, measure_watts
from pggan_kit.benchmarking.report import Case, Progress, Report, TimeBudget
from pggan_kit.benchmarking.rig import Rig
from pggan_kit.benchmarking.timing import LEAST_SECONDS, Kinds, Turns, compute_spread, time_calls
from pggan_kit.schedule import Stage
from pggan_kit.system.devices import (
    free_cached_memory,
    peak_mib,
    read_allocated_mib,
    read_reserved_mib,
    reset_peak,
)

POWER_SECONDS = 1.0
"""Seconds for which a contender works alone while its power is measured."""

LEAST_POWER_SECONDS = 0.3
"""Seconds below which a measurement of power would be of what worked before."""

TURNS_SHARE = 0.35
POWER_SHARE = 0.3
"""Shares of the time for a case that turns and the measurement of power take at most, where time is limited and an
iteration is short."""

OVERTIME = 1.5
"""Times its share of a limited time that a case may take before something of it is left out: others take less."""


@dataclass
class Setting:
    """What all cases have in common.

    Attributes:
        variants: The experiment, and its variants.
        foreigners: Iterations that are not ours; ratios are to the first.
        device: The device.
        rounds: Number of turns of each contender.
        matrix_product: GFLOP/s of a large matrix product by the name of the type.
        read_watts: The function that reads the power; None where it cannot be read.
        budget: The time for everything.
        wait_for_turn: A function that returns when nobody else uses the machine; see `bench`.
        alone: Seconds of convolutions and products that were measured alone before.
    """

    variants: Sequence[Variant]
    foreigners: Sequence[Foreign]
    device: torch.device
    rounds: int
    matrix_product: Mapping[str, float]
    read_watts: ReadWatts | None
    budget: TimeBudget
    wait_for_turn: Callable[[], object]
    alone: dict[tuple[Call, torch.dtype], float] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all contenders."""
        own = [variant.name for variant in self.variants]
        return [*own, *(foreigner.name for foreigner in self.foreigners)]


@dataclass(frozen=True)
class Contender:
    """One of those that take turns at a stage.

    Attributes:
        name: Its name.
        kinds: The kinds of iteration that it runs.
        eager_kinds: The same, operation by operation.
        images: Reals that an iteration draws.
        parameters: Number of parameters of both networks.
        first_seconds: Seconds of its first iteration.
        peak_mib: Maximum memory during its first iterations, in MiB: on a GPU its own alone, else the whole process's.
        reserved_mib: Memory of a GPU that torch holds for it after these, in MiB.
        rig: The stage that it runs at; None for a foreign contender.
    """

    name: str
    kinds: Kinds
    eager_kinds: Kinds
    images: int
    parameters: int
    first_seconds: float
    peak_mib: float
    reserved_mib: float
    rig: Rig | None = None


def build_contenders(setting: Setting, case: Case, report: Report, progress: Progress) -> dict[str, Contender]:
    """Return the contenders of a case by name, after their first iterations, without those that failed."""
    contenders = {}
    for variant in setting.variants:
        progress(f"first iteration of {variant.name}")
        with report.note_failure(variant.name, case, "first iteration", progress):
            contenders[variant.name] = build_own_contender(variant, case.stage, case.fading, setting.device)
    setting.wait_for_turn()
    for foreigner in setting.foreigners:
        progress(f"first iteration of {foreigner.name}")
        with report.note_failure(foreigner.name, case, "first iteration", progress):
            contenders[foreigner.name] = build_foreign_contender(
                foreigner, setting.variants[0], case.stage, case.fading, setting.device
            )
    return contenders


def build_own_contender(variant: Variant, stage: Stage, fading: bool, device: torch.device) -> Contender:
    """Return a variant at a stage, after its first iterations."""
    memory = _Memory(device)
    rig = Rig(variant.prepared, variant.schedule, stage.index, fading)
    seconds = time_calls(rig.step, device)
    kinds = []
    eager_kinds = []
    for share, update in rig.list_kinds():
        kinds.append((share, functools.partial(rig.step, update)))
        eager_kinds.append((share, functools.partial(rig.step, update, eager=True)))
        rig.settle(update)
    peak, reserved = memory.read()

    parameters = 0
    for net in rig.state.networks.values():
        parameters += sum(param.numel() for param in net.parameters())
    return Contender(variant.name, kinds, eager_kinds, rig.batch, parameters, seconds, peak, reserved, rig)


def build_foreign_contender(
    foreigner: Foreign, variant: Variant, stage: Stage, fading: bool, device: torch.device
) -> Contender:
    """Return a foreign contender at a stage, after its first iteration."""
    memory = _Memory(device)
    step, parameters = foreigner.build(variant, stage, fading, device)
    seconds = time_calls(step, device)
    peak, reserved = memory.read()
    kinds = [(1.0, step)]
    return Contender(foreigner.name, kinds, kinds, stage.batch_size, parameters, seconds, peak, reserved)


class _Memory:
    """The memory that a contender takes from now on, without that of others."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # What torch keeps of others' memory would hide what this one needs.
        free_cached_memory(device)
        self._others_mib = read_allocated_mib(device)
        self._others_reserved_mib = read_reserved_mib(device)
        reset_peak(device)

    def read(self) -> tuple[float, float]:
        """Return MiB at the peak, and MiB that torch holds."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        peak = peak_mib(self._device) - self._others_mib
        return peak, read_reserved_mib(self._device) - self._others_reserved_mib


def measure_case(
    setting: Setting, case: Case, report: Report, progress: Progress, seconds: float
) -> dict[str, Contender]:
    """Add the rows of all contenders at one stage, steady or mid-fade, to a report, and return the contenders.

    Args:
        setting: What all cases have in common.
        case: The stage and its phase.
        report: The report.
        progress: A function that takes a line before each step.
        seconds: Time for the case, by which turns are chosen; infinite for no limit.
    """
    budget = TimeBudget(OVERTIME * seconds)
    contenders = build_contenders(setting, case, report, progress)
    if not contenders:
        return {}

    # A turn is as long as it may be at most, or as short as the time demands.
    progress(f"{setting.rounds} rounds of iterations")
    turn_seconds = min(LEAST_SECONDS, TURNS_SHARE * seconds / (setting.rounds * len(contenders)))
    turns = Turns(
        {name: contender.kinds for name, contender in contenders.items()},
        setting.device,
        setting.rounds,
        turn_seconds,
        guard=lambda name: report.note_failure(name, case, "rounds of iterations", progress),
    )

    # Ratios are relative to the first foreign contender, if it could be measured.
    yardstick = None
    if setting.foreigners and setting.foreigners[0].name in turns.rounds:
        yardstick = setting.foreigners[0].name
    measured = {}
    for name in turns.rounds:
        measured[name] = make_row(contenders[name], turns, case, yardstick)
    report.rows += measured.values()

    # What is measured besides may fail without harm to the rows.
    power_seconds = min(POWER_SECONDS, POWER_SHARE * seconds / len(contenders))
    for name, row in measured.items():
        contender = contenders[name]
        if budget.is_up:
            report.leave_out([name], case, "everything but the speed")
            continue
        if setting.read_watts is not None and power_seconds >= LEAST_POWER_SECONDS:
            progress(f"power of {name}")
            with report.note_failure(name, case, "power", progress):
                row |= measure_power(contender, row, setting.read_watts, setting.device, power_seconds)
        measure_costs(setting, case, contender, row, report, progress)
        if contender.rig is not None and not setting.budget.is_limited:
            progress(f"where the time of {name} goes")
            with report.note_failure(name, case, "where the time goes", progress):
                row["shares"] = measure_shares(contender.rig)
        if contender.rig is not None:
            row["notes"] += contender.rig.log
        for note in row["notes"]:
            progress(f"{name}: {note}")
    return contenders


def make_row(contender: Contender, turns: Turns, case: Case, yardstick: str | None) -> dict[str, Any]:
    """Return what the rounds tell of a contender.

    Args:
        contender: The contender.
        turns: The rounds.
        case: The stage and its phase.
        yardstick: The name of the foreign contender that ratios are to; None for no ratios.
    """
    row: dict[str, Any] = {
        "contender": contender.name,
        **case.describe(),
        "parameters": contender.parameters,
        "peak_memory_mib": contender.peak_mib,
    }
    if contender.reserved_mib:
        row["reserved_memory_mib"] = contender.reserved_mib
    rates = [contender.images / seconds for seconds in turns.rounds[contender.name]]
    row["images_per_second"], row["p10"], row["p90"] = compute_spread(rates)
    row["seconds_per_1000_images"] = 1000 / row["images_per_second"]

    # The first iterations of all kinds, without what they take later.
    steady_seconds = contender.images / row["images_per_second"]
    first_iterations = 1 + len(contender.kinds)
    first_seconds = contender.first_seconds + turns.first[contender.name]
    row["first_call_seconds"] = max(0.0, first_seconds - first_iterations * steady_seconds)

    if yardstick is not None:
        ratios = turns.compute_ratios(contender.name, yardstick, contender.images / case.stage.batch_size)
        row["ratio_to"] = yardstick
        row["ratio"], row["ratio_p10"], row["ratio_p90"] = compute_spread(ratios)
    row["notes"] = []
    return row


def measure_power(
    contender: Contender, row: Mapping[str, Any], read_watts: ReadWatts, device: torch.device, seconds: float
) -> dict[str, float]:
    """Return the mean power of a contender that works alone, and the energy of 1,000 images."""
    steps_per_second = row["images_per_second"] / contender.images
    watts = measure_watts(contender.kinds, steps_per_second, read_watts, device, seconds)
    return {"watts": watts, "joules_per_1000_images": watts * row["seconds_per_1000_images"]}


def measure_costs(
    setting: Setting, case: Case, contender: Contender, row: dict[str, Any], report: Report, progress: Progress
) -> None:
    """Add the operations of an image to a row, and how near its speed is to what the machine allows for them.

    Args:
        setting: What all cases have in common.
        case: The stage and its phase.
        contender: The contender.
        row: Its row.
        report: The report.
        progress: A function that takes a line before each step.
    """
    with report.note_failure(contender.name, case, "counting its operations", progress):
        counts = count_kinds(contender.eager_kinds)
        row |= describe_counts(counts, contender.images, row["images_per_second"], setting.matrix_product)
        if contender.rig is None or not counts.calls:
            return
        progress(f"convolutions and matrix products of {contender.name} alone")
        row |= measure_ceiling(setting, counts, contender.images, row)


def describe_counts(counts: Counts, images: int, rate: float, matrix_product: Mapping[str, float]) -> dict[str, Any]:
    """Return what an image takes, and the floating-point operations of a second.

    Args:
        counts: What an iteration does.
        images: Images of an iteration.
        rate: Images per second.
        matrix_product: GFLOP/s of a large matrix product by the name of the type.
    """
    gflops = sum_flops(counts.calls) / images / 1e9
    described: dict[str, Any] = {"gflops_per_image": gflops, "operators": counts.operators}
    described["tflops_per_second"] = gflops * rate / 1000
    if counts.calls:
        name = ceiling.name_dtype(ceiling.find_main_dtype(counts.calls))
        described["computes_in"] = name
        if name in matrix_product:
            described["of_matrix_product"] = gflops * rate / matrix_product[name]
    return described


def measure_ceiling(setting: Setting, counts: Counts, images: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return the rate that the machine allows for an iteration's operations, and the share of it that is reached.

    Args:
        setting: What all cases have in common.
        counts: What an iteration does.
        images: Images of an iteration.
        row: The contender's row, to whose notes is added what could not be measured.
    """
    # The types of interest, and the one that this computes in: there the measured rate is held against the ceiling.
    device = setting.device
    main = ceiling.find_main_dtype(counts.calls)
    dtypes = [main] if setting.budget.is_limited else dict.fromkeys((*ceiling.DTYPES, main))
    alone: dict[str, float] = {}
    for dtype in dtypes:
        if ceiling.is_native(dtype, device):
            seconds = ceiling.measure_alone(counts.calls, dtype, device, setting.alone)
            if seconds is not None:
                alone[ceiling.name_dtype(dtype)] = images / seconds
    measured: dict[str, Any] = {"alone_images_per_second": alone}

    name = ceiling.name_dtype(main)
    if name in alone:
        measured["of_ceiling"] = row["images_per_second"] / alone[name]
    elif ceiling.is_native(main, device):
        row["notes"].append(f"no ceiling in {name}: measuring it takes more than {ceiling.PROBE_SECONDS:.0f} s")
    else:
        row["notes"].append(f"no ceiling in {name}, in which this computes: the device does not do so natively")
    return measured


def count_kernels(
    setting: Setting,
    case: Case,
    contenders: Mapping[str, Contender],
    report: Report,
    progress: Progress,
    record: Record,
) -> None:
    """Add what a GPU is given to do in an iteration to the rows of a case.

    This comes after all else: once the profiler has been used, it may slow down all that the process does.

    Args:
        setting: What all cases have in common.
        case: The stage and its phase.
        contenders: Contenders of the case by name; those that are missing are built again.
        report: The report.
        progress: A function that takes a line before each step.
        record: The function that runs something and returns its events.
    """
    # Our own contenders and the foreign ones, by name.
    builders: dict[str, Callable[[], Contender]] = {}
    for variant in setting.variants:
        builders[variant.name] = functools.partial(
            build_own_contender, variant, case.stage, case.fading, setting.device
        )
    for foreigner in setting.foreigners:
        builders[foreigner.name] = functools.partial(
            build_foreign_contender, foreigner, setting.variants[0], case.stage, case.fading, setting.device
        )

    # Whose speed is not known has no row to add to.
    for name, build in builders.items():
        row = report.find_row(name, case)
        if row is None:
            continue
        if setting.budget.is_up:
            report.leave_out([name], case, "launches and busy share")
            continue
        progress(f"kernels of {name}")
        with report.note_failure(name, case, "counting its kernels", progress):
            contender = contenders.get(name) or build()
            kernels = profile_kinds(contender.kinds, record)
            step_seconds = contender.images / row["images_per_second"]
            row["launches"] = kernels.launches
            row["kernels"] = kernels.kernels
            row["busy_share"] = kernels.busy_seconds / step_seconds
