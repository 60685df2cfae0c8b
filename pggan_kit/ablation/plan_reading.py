"""Read the plan of an ablation from its gin file, and check it with the experiment of each variant."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from pggan_kit.ablation.answers import (
    complete_quantities,
    find_endpoints,
    require_answers,
    require_averages,
    require_same_end,
)
from pggan_kit.ablation.effects import differ_in_training, list_measuring_differences
from pggan_kit.ablation.first_difference import find_first_difference
from pggan_kit.ablation.plan import PLAN, Plan, load_plan
from pggan_kit.ablation.settings import Ablation
from pggan_kit.ablation.source_effects import require_sources
from pggan_kit.ablation.sources import bind_sources, require_free_sources
from pggan_kit.ablation.tuning import plan_tuning
from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.components import Launcher
from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError, SettingError, UserError
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.system.activities import track_items
from pggan_kit.trials.overrides import find_place
from pggan_kit.trials.settings_files import read_settings_file
from pggan_kit.trials.values import list_quantities, list_values


def read_plan(
    file: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = (), folder: Path | None = None
) -> tuple[Plan, Launcher]:
    """Read and check an ablation's gin file and the experiment of each variant; train nothing.

    Args:
        file: The gin file that binds `ablate.*`.
        bindings: Overrides of the plan, and of the experiments of all variants.
        plugins: Files of plugins beside the installed ones.
        folder: The ablation's folder. What the plan there lacks, if there is one, was added later.

    Raises:
        UserError: Something is wrong; the message says what, where and in which variant.
    """
    # The settings, with the additions of a plan that has been started.
    read = read_settings_file(file, bindings, plugins, "ablate", Ablation)
    settings: Ablation = read.built.experiment
    base = read.base
    files = read.files
    additions = _find_additions(settings, folder)
    try:
        settings.require_enough_seeds(additions[1])
    except SettingError as error:
        raise ConfigError(f"{find_place(read.built, 'ablate', 'seeds')}: ablate.{error}") from None
    _require_lists_without_repeats(settings)
    _warn_of_overrides_without_evaluation(settings, read.bindings)

    # The experiment of each variant, the planned ones first.
    added_variants = additions[0]
    shared = [*settings.bindings, *read.bindings]
    variants = {}
    for name in [*(each for each in settings.all_variants if each not in added_variants), *added_variants]:
        variants[name] = [*shared, *settings.all_variants[name]]
    experiments = _prepare_variants(settings, base, shared, list(variants), files)

    # What the comparison needs is checked now, and not after hours of training.
    _require_different(settings, experiments)
    require_same_end(settings, experiments)
    require_averages(settings, experiments)
    evaluations = _prepare_evaluations(settings, base, variants, files)
    _require_measured_alike(settings, evaluations, "when they are evaluated")
    if settings.curves:
        _require_measured_alike(settings, experiments, "at their ticks")
    first_evaluation = next(iter(evaluations.values()))
    quantities = _find_quantities(settings, first_evaluation, find_endpoints(settings, experiments))
    tune = plan_tuning(settings, base, variants, experiments, read.sha256, files)
    plan = _make_plan(file, settings, variants, experiments, quantities, read.sha256, additions, tune)
    return plan, settings.launcher


def _require_lists_without_repeats(settings: Ablation) -> None:
    """Check that each list of bindings is as a file: it binds nothing twice.

    Raises:
        ConfigError: One does; the message names it.
    """
    lists = {f"variant {name}": own_bindings for name, own_bindings in settings.all_variants.items()}
    lists |= {"ablate.bindings": settings.bindings, "ablate.evaluation": settings.evaluation}
    lists["ablate.resample"] = bind_sources(settings.resample, settings.seeds[0])
    for name, texts in lists.items():
        gin_files.parse_text("\n".join(texts), name)


def _warn_of_overrides_without_evaluation(settings: Ablation, bindings: Sequence[str]) -> None:
    """Warn of overrides of `evaluation.*` that hold while runs are trained, and not when they are evaluated."""
    evaluated = gin_files.parse_overrides(settings.evaluation)
    for binding in gin_files.parse_overrides(bindings):
        if binding.selector != "evaluation":
            continue
        if any(binding.key == other.key and binding.value != other.value for other in evaluated):
            warnings.warn(
                f"{binding.place} holds while runs are trained alone: for finished runs ablate.evaluation binds "
                f"{binding.name} to another value. Override that list as a whole: -b 'ablate.evaluation = [...]'",
                stacklevel=3,
            )


def _prepare_variants(
    settings: Ablation, base: Path, shared: Sequence[str], names: Sequence[str], files: Sequence[RecordedFile]
) -> dict[str, Prepared]:
    """Return the experiment of each variant.

    Args:
        settings: The ablation's settings.
        base: Gin file of the experiment.
        shared: Bindings of all variants.
        names: The variants.
        files: The plan's plugin files.

    Raises:
        UserError: An experiment is wrong, or binds what is drawn from the seeds; the message names the variant.
    """
    experiments = {}
    for name in track_items(names, "checking", len(names), "variants"):
        own_bindings = settings.all_variants[name]
        place = settings.find_setting(name)

        # What the seeds draw, no variant may bind; and each has to draw it.
        require_free_sources(settings.resample, shared, "the bindings of all variants hold")
        require_free_sources(settings.resample, own_bindings, f"variant {name} of {place} binds")
        experiments[name] = _prepare_variant(name, place, base, shared, own_bindings, files)
        require_sources(settings, name, base, [*shared, *own_bindings], files)
    return experiments


def _make_plan(
    file: str | Path,
    settings: Ablation,
    variants: dict[str, list[str]],
    experiments: Mapping[str, Prepared],
    quantities: dict[str, dict[str, str]],
    sha256: dict[str, str],
    additions: tuple[list[str], list[list[str]]],
    tune: dict[str, dict[str, Any]],
) -> Plan:
    """Return the plan of settings that were checked.

    Args:
        file: The gin file.
        settings: The ablation's settings.
        variants: Bindings of each variant, the planned ones first.
        experiments: Experiment of each variant.
        quantities: See `Plan`.
        sha256: SHA-256 of each plugin file, by its path.
        additions: Variants and contrasts that were added after the first start.
        tune: The search within each variant.
    """
    added_variants, added_contrasts = additions
    # Tuned variants get values of their own, and share nothing from the first image on.
    branch: int | None = None
    shared: list[str] = []
    if not tune:
        branch, shared = _find_trunk_with_additions(experiments, added_variants)
    return Plan(
        name=Path(file).stem,
        base=settings.base,
        variants=variants,
        seeds=list(settings.seeds),
        controls=dict(settings.controls),
        contrasts=[list(pair) for pair in settings.all_pairs if list(pair) not in added_contrasts],
        primary=settings.primary,
        margin=float(settings.margin),
        evaluation=list(settings.evaluation),
        quantities=quantities,
        shared=shared,
        branch=branch,
        configs={name: experiment.built.config.text() for name, experiment in experiments.items()},
        plugins=sha256,
        exploratory_variants=added_variants,
        exploratory_contrasts=added_contrasts,
        average=settings.average,
        averages=list(settings.averages),
        confirm=list(settings.confirm),
        curves=list(settings.curves),
        quality={name: float(quality) for name, quality in settings.quality.items()},
        resample=dict(settings.resample),
        effects=settings.design.effects,
        design=settings.design.description,
        looks=list(settings.looks) if len(settings.looks) > 1 else [],
        spending=settings.spending,
        futility=float(settings.futility),
        tune=tune,
    )


def _find_additions(settings: Ablation, folder: Path | None) -> tuple[list[str], list[list[str]]]:
    """Return the variants and the contrasts that the plan of a folder lacks; none if it is another plan."""
    if folder is None or not (folder / PLAN).exists():
        return [], []
    fixed = load_plan(folder)
    variants = list(settings.all_variants)
    contrasts = [list(pair) for pair in settings.all_pairs]

    # Without something that was planned it is another plan, whose difference is named later.
    if not set(fixed.planned_variants) <= set(variants) or any(pair not in contrasts for pair in fixed.contrasts):
        return [], []
    added_variants = [name for name in variants if name not in fixed.planned_variants]
    return added_variants, [pair for pair in contrasts if pair not in fixed.contrasts]


def _prepare_variant(
    name: str, place: str, base: Path, shared: Sequence[str], own: Sequence[str], plugins: Sequence[RecordedFile]
) -> Prepared:
    """Return the experiment of a variant, with a schedule that can be made.

    Args:
        name: The variant.
        place: Name of the setting that makes it, for error messages.
        base: Gin file of the experiment.
        shared: Bindings of all variants.
        own: Bindings of this one.
        plugins: The plan's plugin files.

    Raises:
        UserError: The experiment is wrong; the message names the variant, unless all variants have the fault.
    """
    try:
        prepared = prepare(base, [*shared, *own], plugins)
        prepared.schedule()
    except UserError as error:
        owner = f"variant {name}"
        if str(error) == _find_fault(base, shared, plugins):
            owner = "all variants"
        raise type(error)(f"{owner} of {place}: {error}") from error
    return prepared


def _find_fault(base: Path, bindings: Sequence[str], plugins: Sequence[RecordedFile]) -> str | None:
    """Return what is wrong with an experiment, or None."""
    try:
        prepare(base, bindings, plugins).schedule()
    except UserError as error:
        return str(error)
    return None


def _find_quantities(
    settings: Ablation, prepared: Prepared, endpoints: Mapping[str, dict[str, str]]
) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of each value that runs are compared by, after a trial comparison of noise.

    Args:
        settings: The ablation's settings.
        prepared: Experiment of a variant as it is evaluated; all of them are measured alike.
        endpoints: `direction` and `scale` of the endpoints of curves.

    Raises:
        ConfigError: The primary or a confirming value is not among the values, or two values have one name.
    """
    # Those that have to answer are values at the end of the last stage.
    schedule = prepared.schedule()
    stage = schedule.list_planned_stages()[-1]
    of_images, of_runs = list_values(prepared, schedule, stage)
    require_answers(settings, stage.size, of_images, [*of_runs, *endpoints])

    # What the metrics state of them, with what the plan says of the endpoints.
    quantities = list_quantities(prepared.built.experiment.metrics, "ablate.evaluation")
    return complete_quantities(settings, quantities, endpoints)


def _require_different(settings: Ablation, experiments: Mapping[str, Prepared]) -> None:
    """Check that any two variants differ in what they train.

    Raises:
        ConfigError: Two are the same experiment, or differ in what changes nothing of it.
    """
    for one, other in combinations(experiments, 2):
        if not differ_in_training(experiments[one], experiments[other]):
            raise ConfigError(
                f"{settings.find_setting(other)}: {one} and {other} are the same experiment: nothing that they train "
                "differs"
            )


def _prepare_evaluations(
    settings: Ablation, base: Path, variants: Mapping[str, Sequence[str]], plugins: Sequence[RecordedFile]
) -> dict[str, Prepared]:
    """Return the experiment of each variant as it is evaluated.

    Args:
        settings: The ablation's settings.
        base: Gin file of the experiment.
        variants: Bindings of each variant.
        plugins: The plan's plugin files.

    Raises:
        UserError: The evaluation is wrong; the message names the variant, unless it is the first one.
    """
    evaluations: dict[str, Prepared] = {}
    for name, bindings in variants.items():
        try:
            evaluations[name] = prepare(base, [*bindings, *settings.evaluation], plugins)
        except UserError as error:
            place = f"ablate.evaluation of variant {name}" if evaluations else "ablate.evaluation"
            raise type(error)(f"{place}: {error}") from error
    return evaluations


def _require_measured_alike(settings: Ablation, experiments: Mapping[str, Prepared], when: str) -> None:
    """Check that all variants are measured in one way: values that were measured in two cannot be compared.

    Args:
        settings: The ablation's settings.
        experiments: Experiment of each variant, as it measures.
        when: When it measures so, for error messages.

    Raises:
        ConfigError: One is not; the message names it, the first variant and the setting.
    """
    first, *others = experiments
    for name in others:
        places = list_measuring_differences(experiments[first], experiments[name])
        if places:
            raise ConfigError(
                f"{settings.find_setting(name)}: {name} and {first} differ in {', '.join(places)} {when}, and values "
                "that were measured in two ways cannot be compared: bind it for all variants, in ablate.evaluation or "
                "ablate.bindings"
            )


def _find_trunk_with_additions(
    experiments: Mapping[str, Prepared], added_variants: Sequence[str]
) -> tuple[int | None, list[str]]:
    """Return what `_find_trunk` finds among the planned variants, with the added ones that differ late enough."""
    planned = {name: experiment for name, experiment in experiments.items() if name not in added_variants}
    branch, shared = _find_trunk(planned)
    if branch is None:
        return None, []
    for name in added_variants:
        if (find_first_difference(experiments[shared[0]], experiments[name]) or 0) > branch:
            shared.append(name)
    return branch, shared


def _find_trunk(experiments: Mapping[str, Prepared]) -> tuple[int | None, list[str]]:
    """Return the last stage that variants have in common with the first one, and these variants.

    Returns:
        The stage, and the names, the first variant's before the others; None and no names if nothing is shared.
    """
    # A difference at stage 0 leaves nothing to share.
    first, *others = experiments
    first_stages = {}
    for name in others:
        stage = find_first_difference(experiments[first], experiments[name])
        if stage:
            first_stages[name] = stage
    if not first_stages:
        return None, []
    return min(first_stages.values()) - 1, [first, *first_stages]
