"""Measure the stages of an experiment, steady and mid-fade, and whatever else is to be measured in the same rounds."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.benchmarking.breakdown import measure_shares
from pggan_kit.benchmarking.contenders import Foreign, Variant, load_foreign, load_variants
from pggan_kit.benchmarking.flops import count_mean_calls, sum_flops
from pggan_kit.benchmarking.rig import Rig, has_fade
from pggan_kit.benchmarking.timing import ROUNDS, Kinds, Turns, compute_spread, time_calls
from pggan_kit.errors import UserError, first_line, require_list
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.devices import peak_mib, prepare_device, read_allocated_mib, reset_peak
from pggan_kit.system.provenance import describe_machine
from pggan_kit.training.compiler import require_compiler
from pggan_kit.training.out_of_memory import is_out_of_memory

FORMAT = 1
"""Format of the report; see `bench`."""

STEADY = "steady"
FADING = "fading"

Progress = Callable[[str], None]
"""A function that takes a line on what is being measured."""


def bench(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    *,
    stages: Sequence[str] = (),
    others: Mapping[str, Sequence[str]] | None = None,
    against: Sequence[str] = (),
    rounds: int = ROUNDS,
    progress: Progress = lambda line: None,
) -> dict[str, Any]:
    """Measure whole iterations on noise: D with its penalties, G, the average. Nothing is trained or written.

    Everything that can be refused is refused before anything is measured.

    Args:
        config: See `api.prepare`.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.
        stages: Stages by size or number from 0 (`"32x32"`, `"3"`); none for all.
        others: Variants of the experiment: further bindings by the variant's name.
        against: Foreign contenders, `FILE.py:FUNCTION`; see `contenders.Foreign`. Ratios are to the first of them.
        rounds: Number of turns of each contender at each stage, at least 6.
        progress: A function that takes a line before each step of measuring, and the notes of the compiler.

    Returns:
        `machine`: the machine, with `matrix_product`, GFLOP/s by type. `rows`: one for each stage, phase and contender:
        `contender`, `stage`, `size`, `phase` (`steady` or `fading`), `batch`, `parameters`, `images_per_second` and its
        `p10` and `p90` over rounds, `first_call_seconds` (compilation and set-up, beyond a steady iteration),
        `peak_memory_mib` (of the process, or on a GPU what the contender alone allocates). With `against`: `ratio`,
        `ratio_p10`, `ratio_p90`. Of our own: `gflops_per_image`, `shares`, `alone_images_per_second` by type (the speed
        if there were nothing but the stage's convolutions and matrix products, each as fast as it is alone), and
        `of_ceiling`: images per second over that in the type in which the iteration computes; `notes`: what was
        compiled, and what was not and why. `out_of_memory`: one for each contender that memory did not suffice for,
        with `contender`, `stage`, `size`, `phase`, `batch` and `reason`; it has no row in `rows`. Types that the device
        does not compute natively are not measured: they are missing in `matrix_product` and `alone_images_per_second`,
        and where the iteration computes in one, `of_ceiling` is missing and a note says why.

    Raises:
        UserError: The config or an option is wrong.
    """
    # Refuse what can be refused.
    require_list("stages", stages)
    require_list("against", against)
    if rounds < ROUNDS:
        raise UserError(f"--rounds must be at least {ROUNDS}, and is {rounds}")
    variants = load_variants(config, bindings, plugins, others or {})
    first = variants[0]
    chosen = select_stages(first.schedule, stages)
    foreigners = [load_foreign(text) for text in against]
    _require_different_names(variants, foreigners)
    for foreigner in foreigners:
        for stage in chosen:
            foreigner.require_fit(first, stage)
    experiment = first.prepared.built.experiment
    device = prepare_device(experiment.device, experiment.tf32, experiment.deterministic)
    for variant in variants:
        require_compiler(variant.prepared.built.experiment, device)
    cases = [(stage, phase) for stage in chosen for phase in list_phases(first, stage)]

    # Measure the machine, then each stage in each of its phases.
    machine = describe_machine(device)
    machine["matrix_product"] = measure_matrix_products(device, progress)
    report = Report()
    for number, (stage, phase) in enumerate(cases, 1):
        case_progress = _name_case(progress, f"{stage.size} {phase} ({number} of {len(cases)})")
        measure_case(variants, foreigners, stage, phase, device, rounds, case_progress, report)
    return {
        "format": FORMAT,
        "config": str(config),
        "machine": machine,
        "rows": report.rows,
        "out_of_memory": report.out_of_memory,
    }


@dataclass
class Report:
    """What was measured so far; see `bench`.

    Attributes:
        rows: A row for each stage, phase and contender.
        out_of_memory: Where memory did not suffice.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    out_of_memory: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def note_full_memory(self, contender: str, stage: Stage, phase: str, progress: Progress) -> Iterator[None]:
        """Let a block run out of memory: note that, and go on after it."""
        try:
            yield
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            row = {
                "contender": contender,
                "stage": stage.index,
                "size": stage.size,
                "phase": phase,
                "batch": stage.batch_size,
                "reason": first_line(error),
            }
            self.out_of_memory.append(row)
            progress(f"memory ends for {contender} with a batch of {stage.batch_size}: {row['reason']}")


def select_stages(schedule: Schedule, names: Sequence[str]) -> list[Stage]:
    """Return the stages that are named by size or number from 0, in their order; all where none are named.

    Raises:
        UserError: There is no such stage.
    """
    # A stage is known by its size and by its number.
    known = {}
    for stage in schedule.stages:
        known[stage.size] = stage
        known[str(stage.index)] = stage
    for name in names:
        if name not in known:
            sizes = ", ".join(stage.size for stage in schedule.stages)
            raise UserError(f"--stages {name}: there is no such stage; the stages are {sizes} (or 0, 1, ...)")
    if not names:
        return list(schedule.stages)
    return sorted({known[name] for name in names}, key=lambda stage: stage.index)


def _require_different_names(variants: Sequence[Variant], foreigners: Sequence[Foreign]) -> None:
    names = [variant.name for variant in variants]
    names += [foreigner.name for foreigner in foreigners]
    if len(set(names)) < len(names):
        raise UserError(f"contenders need different names, and these are {', '.join(names)}")


def measure_matrix_products(device: torch.device, progress: Progress) -> dict[str, float]:
    """Return the GFLOP/s of a large matrix product by the name of each type that the device computes natively."""
    products = {}
    for dtype in ceiling.DTYPES:
        name = ceiling.name_dtype(dtype)
        if ceiling.is_native(dtype, device):
            progress(f"the machine: a large matrix product in {name}")
            products[name] = ceiling.measure_matrix_product(dtype, device)
        else:
            progress(f"the machine: {name} is not measured, as this device does not compute natively in it")
    return products


def _name_case(progress: Progress, name: str) -> Progress:
    """Return what puts the name of a case before each line."""
    return lambda line: progress(f"{name}: {line}")


def list_phases(variant: Variant, stage: Stage) -> list[str]:
    """Return the phases of a stage whose iterations differ."""
    if has_fade(variant.prepared, variant.schedule, stage):
        return [STEADY, FADING]
    return [STEADY]


@dataclass(frozen=True)
class Contender:
    """One of those that take turns at a stage.

    Attributes:
        name: Its name.
        kinds: The kinds of iteration that it runs.
        images: Reals that an iteration draws.
        parameters: Number of parameters of both networks.
        first_seconds: Seconds of its first iteration.
        peak_mib: Maximum memory during that, in MiB: on a GPU its own alone, else the whole process's.
        rig: The stage that it runs at; None for a foreign contender.
    """

    name: str
    kinds: Kinds
    images: int
    parameters: int
    first_seconds: float
    peak_mib: float
    rig: Rig | None = None


def build_own_contender(variant: Variant, stage: Stage, fading: bool, device: torch.device) -> Contender:
    """Return a variant at a stage, after its first iteration."""
    others_mib = read_allocated_mib(device)
    rig = Rig(variant.prepared, variant.schedule, stage.index, fading)
    seconds, peak = measure_first_call(rig.step, device)
    kinds = [(share, functools.partial(rig.step, update)) for share, update in rig.list_kinds()]
    parameters = 0
    for net in rig.state.networks.values():
        parameters += sum(param.numel() for param in net.parameters())
    return Contender(variant.name, kinds, rig.batch, parameters, seconds, peak - others_mib, rig)


def build_foreign_contender(
    foreigner: Foreign, variant: Variant, stage: Stage, fading: bool, device: torch.device
) -> Contender:
    """Return a foreign contender at a stage, after its first iteration."""
    others_mib = read_allocated_mib(device)
    step, parameters = foreigner.build(variant, stage, fading, device)
    seconds, peak = measure_first_call(step, device)
    return Contender(foreigner.name, [(1.0, step)], stage.batch_size, parameters, seconds, peak - others_mib)


def measure_first_call(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds of a call, and the maximum memory during it in MiB."""
    reset_peak(device)
    seconds = time_calls(work, device)
    return seconds, peak_mib(device)


def measure_case(
    variants: Sequence[Variant],
    foreigners: Sequence[Foreign],
    stage: Stage,
    phase: str,
    device: torch.device,
    rounds: int,
    progress: Progress,
    report: Report,
) -> None:
    """Add the rows of all contenders at one stage, steady or mid-fade, to a report."""
    fading = phase == FADING
    contenders = {}
    for variant in variants:
        progress(f"first iteration of {variant.name}")
        with report.note_full_memory(variant.name, stage, phase, progress):
            contenders[variant.name] = build_own_contender(variant, stage, fading, device)
    for foreigner in foreigners:
        progress(f"first iteration of {foreigner.name}")
        with report.note_full_memory(foreigner.name, stage, phase, progress):
            contenders[foreigner.name] = build_foreign_contender(foreigner, variants[0], stage, fading, device)
    if not contenders:
        return

    # They lie in memory side by side, and kinds of iteration differ in what they take: it may end here, too.
    names = ", ".join(contenders)
    with report.note_full_memory(names, stage, phase, progress):
        progress(f"{rounds} rounds of iterations")
        turns = Turns({name: contender.kinds for name, contender in contenders.items()}, device, rounds)
        yardstick = foreigners[0].name if foreigners and foreigners[0].name in contenders else None
        rows = {name: _make_row(contender, turns, stage, phase, yardstick) for name, contender in contenders.items()}

        # What only our own contenders can tell.
        for variant in variants:
            contender = contenders.get(variant.name)
            if contender is None:
                continue
            assert contender.rig is not None
            row = rows[variant.name]
            notes = list(contender.rig.log)
            progress(f"convolutions and matrix products of {variant.name} alone")
            rate = row["images_per_second"]
            row |= measure_costs(variant, stage, fading, contender.images, rate, device, notes)
            progress(f"where the time of {variant.name} goes")
            row["shares"] = measure_shares(contender.rig)
            row["notes"] = notes
            for note in notes:
                progress(f"{variant.name}: {note}")
        report.rows += rows.values()


def _make_row(contender: Contender, turns: Turns, stage: Stage, phase: str, yardstick: str | None) -> dict[str, Any]:
    """Return what the rounds tell of a contender.

    Args:
        contender: The contender.
        turns: The rounds.
        stage: The stage.
        phase: The phase.
        yardstick: The name of the foreign contender that ratios are to; None for no ratios.
    """
    row: dict[str, Any] = {
        "contender": contender.name,
        "stage": stage.index,
        "size": stage.size,
        "phase": phase,
        "batch": stage.batch_size,
        "parameters": contender.parameters,
        "peak_memory_mib": contender.peak_mib,
    }
    rates = [contender.images / seconds for seconds in turns.rounds[contender.name]]
    row["images_per_second"], row["p10"], row["p90"] = compute_spread(rates)

    # The first iterations of all kinds, without what they take later.
    steady_seconds = contender.images / row["images_per_second"]
    first_iterations = 1 + len(contender.kinds)
    first_seconds = contender.first_seconds + turns.first[contender.name]
    row["first_call_seconds"] = max(0.0, first_seconds - first_iterations * steady_seconds)

    if yardstick is not None:
        ratios = turns.compute_ratios(contender.name, yardstick, contender.images / stage.batch_size)
        row["ratio"], row["ratio_p10"], row["ratio_p90"] = compute_spread(ratios)
    return row


def measure_costs(
    variant: Variant,
    stage: Stage,
    fading: bool,
    images: int,
    rate: float,
    device: torch.device,
    notes: list[str],
) -> dict[str, Any]:
    """Return the operations of an image, and the rate that the machine allows for them.

    Args:
        variant: The experiment.
        stage: The stage.
        fading: Whether it is measured in the middle of its fade.
        images: Reals that an iteration draws.
        rate: Images per second.
        device: The device that it works on.
        notes: Lines to which is added what could not be measured.
    """
    calls = count_mean_calls(lambda: Rig(variant.prepared, variant.schedule, stage.index, fading, compiles=False))
    measured: dict[str, Any] = {"gflops_per_image": sum_flops(calls) / images / 1e9}

    # The types of interest, and the one that this computes in: there the measured rate is held against the ceiling.
    main = ceiling.find_main_dtype(calls)
    alone: dict[str, float] = {}
    for dtype in dict.fromkeys((*ceiling.DTYPES, main)):
        if ceiling.is_native(dtype, device):
            seconds = ceiling.measure_alone(calls, dtype, device)
            if seconds is not None:
                alone[ceiling.name_dtype(dtype)] = images / seconds
    measured["alone_images_per_second"] = alone

    name = ceiling.name_dtype(main)
    if name in alone:
        measured["of_ceiling"] = rate / alone[name]
    elif ceiling.is_native(main, device):
        notes.append(f"no ceiling in {name}: measuring it takes more than {ceiling.PROBE_SECONDS:.0f} s")
    else:
        notes.append(f"no ceiling in {name}, in which this computes: the device does not do so natively")
    return measured
