"""`bench`: every stage of an experiment, steady and mid-fade, and whoever else is to be measured in the same rounds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.benchmarking.breakdown import shares
from pggan_kit.benchmarking.contenders import Foreign, Variant, foreign, variants
from pggan_kit.benchmarking.flops import flops_of, mean_calls
from pggan_kit.benchmarking.rig import Rig, fades
from pggan_kit.benchmarking.timing import ROUNDS, Kinds, Turns, seconds, spread
from pggan_kit.errors import UserError
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.system.devices import peak_mib, prepared_device, reset_peak
from pggan_kit.system.provenance import describe_machine

FORMAT = 1
STEADY, FADING = "steady", "fading"

Progress = Callable[[str], None]


def bench(
    config: str | Path,
    bindings: Sequence[str] = (),
    plugins: Sequence[Any] = (),
    *,
    stages: Sequence[str] = (),
    others: Mapping[str, Sequence[str]] | None = None,
    against: Sequence[str] = (),
    rounds: int = ROUNDS,
    progress: Progress = lambda what: None,
) -> dict[str, Any]:
    """Measure whole iterations on noise: D with its penalties, G, the average. Nothing is trained or written.

    Args:
        config, bindings, plugins: see `api.prepare`.
        stages: which, by size or number from 0 (`"32x32"`, `"3"`); none: all.
        others: variants of the experiment: further bindings by the variant's name.
        against: foreign contenders, `FILE.py:FUNCTION`; see `contenders.Foreign`. Ratios are to the first of them.
        rounds: how many turns each contender has at each stage, at least 6.
        progress: told what is being measured, and what was compiled or could not be.

    Returns:
        `machine`: what it was measured on, with `matrix_product`, GFLOP/s by type. `rows`: one for each stage, phase
        and contender: `contender`, `stage`, `size`, `phase` (`steady` or `fading`), `batch`, `parameters`,
        `images_per_second` and its `p10` and `p90` over rounds, `first_call_seconds` (compilation and set-up, beyond a
        steady iteration), `peak_memory_mib` (of the process, or allocated on the GPU). With `against`: `ratio`,
        `ratio_p10`, `ratio_p90`. Of our own: `gflops_per_image`, `shares`, `alone_images_per_second` by type (were
        there nothing but the stage's convolutions and matrix products, each as fast as it is alone), and
        `of_ceiling`: images per second over that in the type which the iteration computes in; `notes`: what was
        compiled, and what was not and why.

    Raises:
        UserError: the config or an option is wrong.
    """
    if rounds < ROUNDS:
        raise UserError(f"--rounds must be at least {ROUNDS}, and is {rounds}")
    own, foreigners = variants(config, bindings, plugins, others or {}), [foreign(text) for text in against]
    names = [*(variant.name for variant in own), *(who.name for who in foreigners)]
    if len(set(names)) < len(names):
        raise UserError(f"contenders need different names, and these are {', '.join(names)}")
    first, experiment = own[0], own[0].prepared.built.experiment
    device = prepared_device(experiment.device, experiment.tf32)
    machine = {**describe_machine(device), "matrix_product": ceiling.matrix_product(device)}
    report: dict[str, Any] = {"format": FORMAT, "config": str(config), "machine": machine, "rows": []}
    for stage in chosen_stages(first.schedule, stages):
        for phase in (STEADY, FADING) if fades(first.prepared, first.schedule, stage) else (STEADY,):
            report["rows"] += case(own, foreigners, stage, phase, device, rounds, progress)
    return report


def chosen_stages(schedule: Schedule, wanted: Sequence[str]) -> list[Stage]:
    """Stages by size or number from 0, in their order; all where none are named.

    Raises:
        UserError: there is no such stage.
    """
    known = {name: stage for stage in schedule.stages for name in (stage.size, str(stage.index))}
    for name in wanted:
        if name not in known:
            sizes = ", ".join(stage.size for stage in schedule.stages)
            raise UserError(f"--stages {name}: there is no such stage; the stages are {sizes} (or 0, 1, ...)")
    return sorted({known[name] for name in wanted}, key=lambda stage: stage.index) or list(schedule.stages)


@dataclass(frozen=True)
class Contender:
    """One of those that take turns: what it runs, and what its first iteration took."""

    name: str
    kinds: Kinds
    images: int
    parameters: int
    seconds: float
    peak_mib: float
    rig: Rig | None = None


def own_contender(variant: Variant, stage: Stage, fading: bool) -> Contender:
    """A variant at a stage, after its first iteration."""
    rig = Rig(variant.prepared, variant.schedule, stage.index, fading)
    taken, peak = first_call(rig.step, rig.state.device)
    kinds = [(share, functools.partial(rig.step, update)) for share, update in rig.kinds()]
    nets = (rig.state.generator, rig.state.discriminator)
    parameters = sum(param.numel() for net in nets for param in net.parameters())
    return Contender(variant.name, kinds, rig.batch, parameters, taken, peak, rig)


def foreign_contender(who: Foreign, variant: Variant, stage: Stage, fading: bool, device: torch.device) -> Contender:
    """Someone else's iteration at a stage, after its first."""
    step, parameters = who.at(variant, stage, fading, device)
    taken, peak = first_call(step, device)
    return Contender(who.name, [(1.0, step)], stage.batch_size, parameters, taken, peak)


def first_call(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Its seconds, and the most memory it took in MiB."""
    reset_peak(device)
    return seconds(work, device), peak_mib(device)


def case(
    own: Sequence[Variant],
    others: Sequence[Foreign],
    stage: Stage,
    phase: str,
    device: torch.device,
    rounds: int,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The report's rows of all contenders at one stage, steady or mid-fade."""
    progress(f"measuring {stage.size} {phase}")
    fading = phase == FADING
    contenders = [own_contender(variant, stage, fading) for variant in own]
    contenders += [foreign_contender(who, own[0], stage, fading, device) for who in others]
    turns = Turns({contender.name: contender.kinds for contender in contenders}, device, rounds)
    rows = []
    for contender in contenders:
        row: dict[str, Any] = {"contender": contender.name, "stage": stage.index, "size": stage.size, "phase": phase}
        row |= {"batch": stage.batch_size, "parameters": contender.parameters, "peak_memory_mib": contender.peak_mib}
        rates = [contender.images / taken for taken in turns.rounds[contender.name]]
        row |= dict(zip(("images_per_second", "p10", "p90"), spread(rates), strict=True))
        usual = contender.images / row["images_per_second"]
        begun = contender.seconds + turns.first[contender.name] - (1 + len(contender.kinds)) * usual
        row["first_call_seconds"] = max(0.0, begun)
        if others:
            ratios = spread(turns.ratios(contender.name, others[0].name, contender.images / stage.batch_size))
            row |= dict(zip(("ratio", "ratio_p10", "ratio_p90"), ratios, strict=True))
        rows.append(row)
    for variant, row, contender in zip(own, rows, contenders, strict=False):
        assert contender.rig is not None
        row |= costs(variant, stage, fading, contender.images, row["images_per_second"], device)
        row["shares"] = shares(contender.rig)
        row["notes"] = contender.rig.log
        for note in contender.rig.log:
            progress(f"{variant.name}: {note}")
    return rows


def costs(
    variant: Variant, stage: Stage, fading: bool, images: int, rate: float, device: torch.device
) -> dict[str, Any]:
    """Operations of an image, and the rate that the machine allows for them."""
    calls = mean_calls(lambda: Rig(variant.prepared, variant.schedule, stage.index, fading, compiles=False))
    main = ceiling.main_dtype(calls)
    alone = {ceiling.name_of(dtype): images / ceiling.alone(calls, dtype, device) for dtype in {*ceiling.DTYPES, main}}
    return {
        "gflops_per_image": flops_of(calls) / images / 1e9,
        "alone_images_per_second": alone,
        "of_ceiling": rate / alone[ceiling.name_of(main)],
    }
