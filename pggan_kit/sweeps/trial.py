"""One trial of a sweep: trained stage by stage, measured at the end of each, and stopped where the pruner says so."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.evaluate import evaluate
from pggan_kit.api.prepare import KEEP_NONE, prepare
from pggan_kit.errors import (
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    RunError,
    SettingError,
    UserError,
    first_line,
    iterate_causes,
)
from pggan_kit.evaluation.scales import compute_mean
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.sweeps.plan import BASE, CONFIG, PLAN, SweepPlan, load_plan
from pggan_kit.sweeps.spaces import bind_values, list_corners
from pggan_kit.sweeps.study import OpenTrial, Study
from pggan_kit.trials.plan_files import require_planned_config
from pggan_kit.trials.processes import Say, list_recorded_files
from pggan_kit.trials.same_data import require_same_data
from pggan_kit.trials.training import StageReached, StopAfter, describe_early_end, train_or_resume

MOST_ATTEMPTS = 3
"""Number of processes that fail or are killed at the same place, after which a trial has ended without a value."""

RUNS = "runs"
"""Name of the folder with the runs of each trial."""


class _EndedEarlyError(Exception):
    """A run ended before the stage at whose end it was to be measured; the message says where."""


def locate_run(folder: Path, number: int, seed: str) -> Path:
    """Return the run directory of a trial with a seed."""
    return folder / RUNS / str(number) / seed


def run_next_trial(folder: Path, plugins: Sequence[str | Path] = (), say: Say = print) -> int | None:
    """Run a trial to its end: one that an earlier process left, from wherever that stopped, or else a new one.

    Args:
        folder: The sweep's folder, which holds its plan.
        plugins: Files among the plan's plugin files that the user named.
        say: Function that is called with one line at the end of each stage.

    Returns:
        The number of the trial; None if no trial is left to run.

    Raises:
        UserError, TrainingError, Interrupted, OSError: The trial has not ended; it can be run again.
    """
    plan = load_plan(folder)
    require_planned_config(folder / BASE, plan.config, PLAN)
    files = list_recorded_files(folder / PLAN, plan.plugins, plugins, "sweep")
    study = Study(plan, folder)
    while True:
        with study.take_trial() as trial:
            if trial is None:
                say("no trial is left to run")
                return None
            if _run_trial(plan, folder, trial, files, say):
                return trial.number


def _describe_progress(plan: SweepPlan, folder: Path, trial: OpenTrial) -> str:
    """Return how far a trial is: from where another process would go on."""
    images = 0
    for seed in plan.seeds:
        # The run itself tells of what it finds amiss there.
        checkpoints = RunDirectory(locate_run(folder, trial.number, seed)).checkpoints(say=lambda line: None)
        images += max((entry.images for entry in checkpoints.read_entries()), default=0)
    return f"{len(trial.stage_values)} values, {images} images"


def _run_trial(plan: SweepPlan, folder: Path, trial: OpenTrial, files: Sequence[RecordedFile], say: Say) -> bool:
    """Run a trial to its end; end it without a value where its values are refused or too many processes failed.

    Returns:
        Whether it ran; if not, earlier processes were killed in it.
    """
    progress = _describe_progress(plan, folder, trial)
    attempts = trial.begin_attempt(progress)
    if attempts > MOST_ATTEMPTS:
        why = f"failed {MOST_ATTEMPTS} times: its process was killed, for want of memory for example"
        _end_without_value(trial, why, say)
        return False

    # A process that fails or is killed counts; one that was stopped does not, nor one for which the machine failed.
    say(f"trial {trial.number}: {'; '.join(bind_values(plan.space, trial.values))}")
    try:
        _run_stages(plan, folder, trial, files, say)
    except (Interrupted, KeyboardInterrupt):
        trial.forget_attempt()
        raise
    except Exception as error:
        if _is_of_the_machine(error, plan, folder, files):
            trial.forget_attempt()
            raise
        # Values for which there is no memory, for example, must not keep the others from being tried.
        if isinstance(error, ConfigError | SettingError):
            _end_without_value(trial, f"refused: {first_line(error)}", say)
        elif attempts < MOST_ATTEMPTS or _describe_progress(plan, folder, trial) != progress:
            raise
        else:
            _end_without_value(trial, f"failed {attempts} times: {first_line(error)}", say)
    return True


def _is_of_the_machine(error: Exception, plan: SweepPlan, folder: Path, files: Sequence[RecordedFile]) -> bool:
    """Return whether an error has nothing to do with the values of a trial: a full disk, a file that is missing."""
    if any(isinstance(cause, OSError | RunError | DataError) for cause in iterate_causes(error)):
        return True
    if not isinstance(error, UserError):
        return False

    # Where a plugin was changed, for example, the values with which the sweep was planned are refused as well.
    first_corner = list_corners(plan.space)[0]
    first_seed = next(iter(plan.seeds.values()))
    try:
        prepare(folder / CONFIG, [*first_corner, *first_seed], files)
    except UserError:
        return True
    return False


def _end_without_value(trial: OpenTrial, why: str, say: Say) -> None:
    """End a trial that has no value, and say why."""
    trial.end(None, why)
    say(f"trial {trial.number}: {why}")


def _run_stages(plan: SweepPlan, folder: Path, trial: OpenTrial, files: Sequence[RecordedFile], say: Say) -> None:
    """Train and measure a trial stage by stage, until it ends."""
    reported = trial.stage_values
    for step, (stage, size) in enumerate(zip(plan.stages, plan.sizes, strict=True), 1):
        is_last = stage == plan.stages[-1]
        value = reported.get(size)

        # What an earlier process measured is not measured again.
        if value is None:
            try:
                value = _train_and_measure(plan, folder, trial, stage, size, files)
            except _EndedEarlyError as error:
                _end_without_value(trial, str(error), say)
                return
            except DivergedError as error:
                _end_without_value(trial, f"diverged: {error}", say)
                return
            if not math.isfinite(value):
                _end_without_value(trial, f"{plan.metric} at {size} is not finite", say)
                return
            trial.report(step, value)
            say(f"trial {trial.number}: {plan.metric} at {size} {value:.4g}")

        # The pruner decides between stages, and never about a trial that has ended.
        if is_last:
            trial.end(value)
        elif trial.asks_to_prune():
            _end_without_value(trial, f"pruned after {size}", say)
            return


def _train_and_measure(
    plan: SweepPlan, folder: Path, trial: OpenTrial, stage: int, size: str, files: Sequence[RecordedFile]
) -> float:
    """Return the value of a trial at the end of a stage of a size: the mean over its seeds.

    Raises:
        DivergedError: A run diverged.
        _EndedEarlyError: A run did not get to the stage.
    """
    values = []
    for seed, seed_bindings in plan.seeds.items():
        run = locate_run(folder, trial.number, seed)
        own_plugins: list[Any] = [*files]
        # The last stage ends with the run.
        if stage != plan.stages[-1]:
            own_plugins.append(StopAfter(stage))
        bindings = [*bind_values(plan.space, trial.values), *seed_bindings]
        as_evaluated = [*bindings, KEEP_NONE, *plan.evaluation]
        require_same_data(prepare(folder / CONFIG, as_evaluated, files), folder)
        # Where it pauses it has saved, and is measured as it is there.
        with contextlib.suppress(StageReached):
            train_or_resume(run, folder / CONFIG, bindings, own_plugins)
        early_end = describe_early_end(run, size)
        if early_end is not None:
            raise _EndedEarlyError(early_end)
        rows = evaluate(run, bindings=plan.evaluation, plugins=files, average=plan.average)
        values.append(_find_value(plan, rows))
    return compute_mean(values, plan.scale)


def _find_value(plan: SweepPlan, rows: Sequence[dict[str, Any]]) -> float:
    """Return the value of the metric of a sweep; NaN where it is not finite.

    Raises:
        ConfigError: The evaluation gives no such value.
    """
    for row in rows:
        if row["metric"] == plan.metric:
            return math.nan if row["value"] is None else float(row["value"])
    raise ConfigError(
        f"the metric of a sweep is {plan.metric!r}, and the evaluation gives {', '.join(row['metric'] for row in rows)}"
    )
