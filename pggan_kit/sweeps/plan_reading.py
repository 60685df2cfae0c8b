"""Read the plan of a sweep from its gin file, and check it with the experiment at the ends of all ranges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pggan_kit.api.prepare import Prepared, prepare
from pggan_kit.components import Launcher, find_quantity
from pggan_kit.config import gin_files
from pggan_kit.errors import ConfigError, UserError
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.schedule import Schedule, Stage
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.sweeps.settings import Sweep, Tuning
from pggan_kit.sweeps.spaces import list_corners
from pggan_kit.sweeps.study import import_optuna
from pggan_kit.system.activities import track_items
from pggan_kit.trials.settings_files import read_settings_file
from pggan_kit.trials.values import list_quantities, list_values

PrepareWith = Callable[[Sequence[str]], Prepared]
"""Function that returns the experiment of a search under further bindings."""


@dataclass(frozen=True)
class ReadSweep:
    """A sweep as its file describes it.

    Attributes:
        plan: The plan.
        launcher: Launcher that runs its trials.
        base: Gin file of the experiment.
        bindings: Bindings of all trials, and first values of the parameters.
        files: The plan's plugin files.
    """

    plan: SweepPlan
    launcher: Launcher
    base: Path
    bindings: list[str]
    files: list[RecordedFile]


def read_sweep(file: str | Path, bindings: Sequence[str] = (), plugins: Sequence[str | Path] = ()) -> ReadSweep:
    """Read and check a sweep's gin file and its experiment; train nothing.

    Args:
        file: The gin file that binds `sweep.*`.
        bindings: Overrides of the sweep, and of its experiment.
        plugins: Files of plugins beside the installed ones.

    Raises:
        UserError: Something is wrong; the message says what and where.
    """
    import_optuna()
    read = read_settings_file(file, bindings, plugins, "sweep", Sweep)
    settings: Sweep = read.built.experiment
    for name, texts in {"sweep.bindings": settings.bindings, "sweep.evaluation": settings.evaluation}.items():
        gin_files.parse_text("\n".join(texts), name)
    shared = [*settings.bindings, *read.bindings]
    seeds = {str(seed): [f"train.seed = {seed}"] for seed in settings.seeds}
    bound = {"sweep.bindings binds": settings.bindings, "an override binds": read.bindings}
    _require_unbound(_list_targets(seeds), bound, "sweep", "is bound by the seeds: bind sweep.seeds instead")

    def prepare_with(further: Sequence[str]) -> Prepared:
        return prepare(read.base, [*shared, *further], read.files, absolute_paths=True)

    # With some values, since the experiment may not have them, and each trial has its own in their place.
    first_corner = list_corners(settings.space)[0]
    try:
        config = prepare_with(first_corner).config.text()
    except UserError as error:
        raise type(error)(f"sweep.parameters: {error}") from error
    plan = plan_search(
        Path(file).stem,
        config,
        settings,
        seeds,
        settings.metric,
        settings.evaluation,
        None,
        read.sha256,
        bound,
        prepare_with,
        "sweep",
    )
    return ReadSweep(plan, settings.launcher, read.base, [*shared, *first_corner], read.files)


def plan_search(
    name: str,
    config: str,
    tuning: Tuning,
    seeds: Mapping[str, Sequence[str]],
    metric: str,
    evaluation: Sequence[str],
    average: str | float | None,
    sha256: Mapping[str, str],
    bound: Mapping[str, Sequence[str]],
    prepare_with: PrepareWith,
    setting: str,
) -> SweepPlan:
    """Return the plan of a search, after the experiment was built with values from all ends of its ranges.

    Args:
        name, config, seeds, metric, evaluation, average: See `SweepPlan`.
        tuning: The settings of the search.
        sha256: SHA-256 of each plugin file, by its path.
        bound: Bindings of all trials, by what holds them and a verb, for error messages.
        prepare_with: Function that returns the experiment under further bindings.
        setting: Name of the setting, or of the root of settings, that holds the search, for error messages.

    Raises:
        UserError: The experiment is wrong with some values or a seed, a parameter is bound elsewhere, the metric is not
            among those that are measured, or a pruner has nothing to go by.
    """
    # What the search binds displaces what is bound to the same name, which would then have no effect.
    reason = "is one of the parameters and has other values in each trial: leave it out"
    _require_unbound(tuning.space, {**bound, "its evaluation binds": evaluation}, setting, reason)

    # The experiment, and then its evaluation.
    stages = _check_corners(tuning, seeds, prepare_with, setting)
    try:
        evaluated = prepare_with([*list_corners(tuning.space)[0], *evaluation])
    except UserError as error:
        raise type(error)(f"{setting}, its evaluation: {error}") from error
    schedule = evaluated.schedule()
    _require_metric(metric, evaluated, schedule, setting)
    quantity = _find_quantity_of(metric, evaluated, setting)

    # Without a pruner nothing is decided before the end.
    measured = stages[-1:]
    if tuning.pruner is not None:
        measured = [stage for stage in stages if metric in _list_all_values(evaluated, schedule, stage)]
        _require_stages_to_prune(tuning.pruner, metric, measured, setting)
    return SweepPlan(
        name=name,
        config=config,
        parameters={parameter: own_range.record() for parameter, own_range in tuning.space.items()},
        trials=tuning.trials,
        seeds={seed: list(texts) for seed, texts in seeds.items()},
        metric=metric,
        evaluation=list(evaluation),
        average=average,
        direction=quantity["direction"],
        scale=quantity["scale"],
        stages=[stage.index for stage in measured],
        sizes=[stage.size for stage in measured],
        search=tuning.search,
        startup=tuning.startup,
        pruner=tuning.pruner,
        search_seed=tuning.search_seed,
        plugins=dict(sha256),
    )


def _check_corners(
    tuning: Tuning, seeds: Mapping[str, Sequence[str]], prepare_with: PrepareWith, setting: str
) -> list[Stage]:
    """Check the experiment with values from all ends of the ranges, and return its stages that spend images.

    Raises:
        UserError: It is wrong with some values, or has other stages.
    """
    bound_by_seed = _list_targets(seeds)
    for name in tuning.space:
        if name in bound_by_seed:
            raise ConfigError(f"{setting}: {name} is bound by the seeds, and cannot be one of the parameters")

    # Whatever the values are, trials have the same stages.
    first_seed = next(iter(seeds.values()))
    sizes: list[str] | None = None
    stages: list[Stage] = []
    corners = list_corners(tuning.space)
    for corner in track_items(corners, "checking", len(corners), "values"):
        try:
            schedule = prepare_with([*corner, *first_seed]).schedule()
        except UserError as error:
            raise type(error)(f"{setting}.parameters: {error}") from error
        stages = schedule.list_planned_stages()
        own_sizes = [stage.size for stage in stages]
        if sizes is not None and own_sizes != sizes:
            raise ConfigError(
                f"{setting}.parameters: with {'; '.join(corner)} the stages are {', '.join(own_sizes)}, and else "
                f"{', '.join(sizes)}: values of one size are compared, so all trials need the same"
            )
        sizes = own_sizes
    return stages


def _require_unbound(targets: Collection[str], bound: Mapping[str, Sequence[str]], setting: str, reason: str) -> None:
    """Check that what a search binds is bound nowhere else, besides in the file of the experiment.

    Args:
        targets: What it binds.
        bound: See `plan_search`.
        setting: See `plan_search`.
        reason: Rest of the sentence that begins with the target, for the message.

    Raises:
        ConfigError: It is.
    """
    for owner, texts in bound.items():
        for binding in gin_files.parse_overrides(texts):
            if binding.name in targets:
                raise ConfigError(f"{setting}: {owner} {binding.name}, which {reason}")


def _list_targets(seeds: Mapping[str, Sequence[str]]) -> set[str]:
    """Return what the bindings of runs with all seeds bind."""
    return {binding.name for texts in seeds.values() for binding in gin_files.parse_overrides(texts)}


def _require_stages_to_prune(pruner: str, metric: str, measured: Sequence[Stage], setting: str) -> None:
    """Check that the metric is measured before the end.

    Raises:
        ConfigError: It is not.
    """
    if len(measured) < 2:
        raise ConfigError(
            f"{setting}: the pruner {pruner!r} has nothing to go by, because {metric} is measured at the end of "
            f"{measured[-1].size} alone: it needs an earlier stage that has images, and a metric that is defined "
            "there; or bind no pruner"
        )


def _list_all_values(evaluated: Prepared, schedule: Schedule, stage: Stage) -> list[str]:
    """Return the names of all values that an evaluation gives at the end of a stage."""
    of_images, of_runs = list_values(evaluated, schedule, schedule.stages[stage.index])
    return [*of_images, *of_runs]


def _require_metric(metric: str, evaluated: Prepared, schedule: Schedule, setting: str) -> None:
    """Check that the evaluation gives the metric at the end of the last stage.

    Raises:
        ConfigError: It does not; the message lists what it gives.
    """
    stage = schedule.list_planned_stages()[-1]
    names = _list_all_values(evaluated, schedule, stage)
    if metric not in names:
        raise ConfigError(
            f"{setting}: the metric is {metric!r}, and the evaluation at {stage.size} gives "
            f"{', '.join(names) or 'nothing'}: bind train.metrics in it"
        )


def _find_quantity_of(metric: str, evaluated: Prepared, setting: str) -> dict[str, str]:
    """Return the direction and the scale of a metric.

    Raises:
        ConfigError: It states none.
    """
    quantity = find_quantity(list_quantities(evaluated.built.experiment.metrics, f"{setting}, its evaluation"), metric)
    if quantity is None:
        raise ConfigError(
            f"{setting}: the metric of {metric!r} states no direction and scale for it: add it to its `quantities`"
        )
    return quantity
