"""Measure the stages of an experiment, steady and mid-fade, and whatever else is to be measured in the same rounds."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.benchmarking.cases import Contender, Setting, count_kernels, measure_case
from pggan_kit.benchmarking.contenders import Foreign, Variant, load_foreign, load_variants
from pggan_kit.benchmarking.kernels import Record, record_cuda
from pggan_kit.benchmarking.power import ReadWatts
from pggan_kit.benchmarking.report import FADING, PHASES, STEADY, Case, Progress, Report, TimeBudget, free_memory
from pggan_kit.benchmarking.rig import has_fade
from pggan_kit.benchmarking.timing import ROUNDS
from pggan_kit.errors import UserError, require_list
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.devices import prepare_device
from pggan_kit.system.nvml import Card, NvmlError
from pggan_kit.system.provenance import describe_machine, find_revision
from pggan_kit.training.compiler import require_compiler

FORMAT = 1
"""Format of the report; see `bench`."""

KERNELS_SHARE = 0.2
"""Share of a limited time that is kept for counting a GPU's kernels, after everything else."""


def bench(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    *,
    stages: Sequence[str] = (),
    phases: Sequence[str] = (),
    others: Mapping[str, Sequence[str]] | None = None,
    against: Sequence[str] = (),
    rounds: int = ROUNDS,
    seconds: float | None = None,
    cudnn_benchmark: bool = False,
    revision: str | None = None,
    matrix_product: Mapping[str, float] | None = None,
    wait_for_turn: Callable[[], object] = lambda: None,
    progress: Progress = lambda line: None,
    save: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """Measure whole iterations on noise: D with its penalties, G, the average. Nothing is trained or written.

    Everything that can be refused is refused before anything is measured.

    Args:
        config: See `api.prepare`.
        bindings: See `api.prepare`.
        plugins: See `api.prepare`.
        stages: Stages by size or number from 0 (`"32x32"`, `"3"`); none for all.
        phases: `"steady"`, `"fading"`; none for both.
        others: Variants of the experiment: further bindings by the variant's name.
        against: Foreign contenders, `FILE.py:FUNCTION`; see `contenders.Foreign`. Ratios are to the first of them.
        rounds: Number of turns of each contender at each stage, at least 6.
        seconds: Time for everything: turns become shorter, and what there is no time for is left out and listed. The
            case that is being measured when it is up is finished. None for no limit.
        cudnn_benchmark: Whether cuDNN tries its algorithms on the first convolution of each shape, for all contenders
            alike; training leaves the choice to cuDNN's rules.
        revision: Revision of the code; None for that of the git checkout, or the version.
        matrix_product: Speed of large products, if it was measured before; see `machine` below.
        wait_for_turn: A function that is called before anything of a case is timed, after our own contenders have had
            their first iterations, and have compiled. Where several processes measure one machine, it returns when no
            other does.
        progress: A function that takes a line before each step of measuring, and the notes of the compiler.
        save: A function that takes the report as far as it is, after each stage and phase.

    Returns:
        `machine`: the machine and its software, with `matrix_product`, GFLOP/s by type. `revision`, `date` and
        `configuration`, all settings in effect by contender. `rows`: one for each stage, phase and contender:
        `contender`, `stage`, `size`, `phase` (`steady` or `fading`), `batch`, `parameters`, `images_per_second` and its
        `p10` and `p90` over rounds, `seconds_per_1000_images`, `first_call_seconds` (compilation and set-up, beyond a
        steady iteration), `peak_memory_mib` (of the process, or on a GPU what the contender alone allocates),
        `gflops_per_image`, `tflops_per_second`, `operators` of an eager iteration, `computes_in`, the type of most
        operations, and `of_matrix_product`: operations per second over those of a large matrix product in that type.
        With `against`: `ratio`, `ratio_p10`, `ratio_p90`. Of our own: `alone_images_per_second` by type (the speed
        if there were nothing but the stage's convolutions and matrix products, each as fast as it is alone), and
        `of_ceiling`: images per second over that in the type in which the iteration computes; `notes`: what was
        compiled, and what was not and why; without a limit of time `shares`. On a GPU: `reserved_memory_mib`,
        `launches` (calls that give the GPU work; a replayed graph is one), `kernels`, and `busy_share`: the share of an
        iteration in which a kernel runs; with NVML `watts` and `joules_per_1000_images`. `failures`: one for each
        contender that raised, with `contender`, `stage`, `size`, `phase`, `batch`, `activity`, `reason`,
        `out_of_memory` and `traceback`; it has a row only where its iterations were measured. `left_out`: what there
        was no time for, with `what`. Types that the device does not compute natively are not measured: they are missing
        in `matrix_product` and `alone_images_per_second`, and where the iteration computes in one, `of_ceiling` is
        missing and a note says why.

    Raises:
        UserError: The config or an option is wrong.
    """
    # Refuse what can be refused.
    require_list("stages", stages)
    require_list("phases", phases)
    require_list("against", against)
    if rounds < ROUNDS:
        raise UserError(f"--rounds must be at least {ROUNDS}, and is {rounds}")
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UserError(f"--seconds must be above 0 and finite, and is {seconds}")
    variants = load_variants(config, bindings, plugins, others or {})
    first = variants[0]
    chosen = select_stages(first.schedule, stages)
    for phase in phases:
        if phase not in PHASES:
            raise UserError(f"--phases {phase}: there is no such phase; the phases are {' and '.join(PHASES)}")
    foreigners = [load_foreign(text) for text in against]
    _require_different_names(variants, foreigners)
    for foreigner in foreigners:
        for stage in chosen:
            foreigner.require_fit(first, stage)
    experiment = first.prepared.built.experiment
    device = prepare_device(experiment.device, experiment.tf32, experiment.deterministic)
    for variant in variants:
        require_compiler(variant.prepared.built.experiment, device)

    # Where time ends early, all stages have been measured after their fades.
    cases = []
    for phase in PHASES:
        if not phases or phase in phases:
            cases += [Case(stage, phase) for stage in chosen if phase in list_phases(first, stage)]
    if not cases:
        raise UserError("--phases fading: none of the chosen stages fades")

    # Measure the machine, then each stage in each of its phases.
    budget = TimeBudget(seconds)
    report = Report(device)
    document: dict[str, Any] = {
        "format": FORMAT,
        "config": str(config),
        "revision": revision or find_revision(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "configuration": {variant.name: variant.prepared.built.operative for variant in variants},
        "rounds": rounds,
        "seconds": seconds,
        "machine": describe_machine(device),
        "failures": report.failures,
        "left_out": report.left_out,
    }

    # The process's choice of kernels is restored afterwards, also where measuring fails.
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = cudnn_benchmark
    try:
        machine = document["machine"]
        machine["cudnn_benchmark"] = cudnn_benchmark
        machine["tf32"] = experiment.tf32
        read_watts = open_card(device, machine, progress)
        if matrix_product is None:
            matrix_product = measure_matrix_products(device, progress)
        machine["matrix_product"] = dict(matrix_product)
        setting = Setting(variants, foreigners, device, rounds, matrix_product, read_watts, budget, wait_for_turn)
        measure_cases(setting, cases, report, progress, lambda: save(document | {"rows": report.list_rows()}))
    finally:
        torch.backends.cudnn.benchmark = before
    return document | {"rows": report.list_rows()}


def measure_cases(
    setting: Setting, cases: Sequence[Case], report: Report, progress: Progress, save: Callable[[], object]
) -> None:
    """Measure all cases, as far as there is time; on a GPU count its kernels after that."""
    record = choose_event_recorder(setting.device)
    contenders: dict[str, Contender] = {}
    kept = 0.0
    if record is not None and setting.budget.is_limited:
        kept = KERNELS_SHARE * setting.budget.seconds
    for number, case in enumerate(cases, 1):
        case_progress = _name_case(progress, f"{case.stage.size} {case.phase} ({number} of {len(cases)})")
        seconds = (setting.budget.left - kept) / (len(cases) - number + 1)
        if seconds <= 0:
            case_progress("left out: the time is up")
            report.leave_out(setting.names, case, "everything")
        else:
            contenders = measure_case(setting, case, report, case_progress, seconds)
            # A single case's are kept for what follows: to build them again may take a minute of compiling.
            if len(cases) > 1:
                contenders = {}
            free_memory(setting.device)
        save()
    if record is None:
        return
    for case in cases:
        case_progress = _name_case(progress, f"{case.stage.size} {case.phase}")
        count_kernels(setting, case, contenders, report, case_progress, record)
        free_memory(setting.device)
        save()


def choose_event_recorder(device: torch.device) -> Record | None:
    """Return the function that records the events of a device; None where there are none to count."""
    return record_cuda if device.type == "cuda" else None


def open_card(device: torch.device, machine: dict[str, Any], progress: Progress) -> ReadWatts | None:
    """Add what NVML tells of a GPU to the machine, and return the function that reads its power, where there is one."""
    if device.type != "cuda":
        return None
    try:
        card = Card(device)
        machine |= card.describe()
        card.read_watts()
    except NvmlError as error:
        machine["nvml"] = str(error)
        progress(f"the machine: power is not measured: {error}")
        return None
    return card.read_watts


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
    """Return the GFLOP/s of a large matrix product by the name of each type that the device computes natively.

    Types for which there is no memory are missing, too.
    """
    products = {}
    for dtype in ceiling.DTYPES:
        name = ceiling.name_dtype(dtype)
        if ceiling.is_native(dtype, device):
            progress(f"the machine: a large matrix product in {name}")
            product = ceiling.measure_matrix_product(dtype, device)
            if product is None:
                progress(f"the machine: {name} is not measured, as there is no memory left")
            else:
                products[name] = product
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
