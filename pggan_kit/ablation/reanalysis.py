"""Analyse an ablation without training: what has ended, also when runs are gone; and runs that are evaluated again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import conduct
from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.analysis import analyse_results
from pggan_kit.ablation.archive import TABLE, Key, Results, describe_irreplaceable, read_table, read_trials
from pggan_kit.ablation.endpoints import list_endpoint_quantities
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import name_average
from pggan_kit.api.prepare import KEEP_NONE, prepare_run
from pggan_kit.components import find_quantity
from pggan_kit.config import gin_files
from pggan_kit.config.bindings import Binding
from pggan_kit.config.gin_files import OVERRIDE
from pggan_kit.errors import (
    ConfigError,
    RunError,
    SettingError,
    UserError,
    check_above,
    check_between,
    check_finite,
    require_list,
)
from pggan_kit.growth.power_functions import LARGEST_WIDTH
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.system.activities import track_items
from pggan_kit.system.files import explain_damage, read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import RunLock
from pggan_kit.trials.plan_files import list_defaults
from pggan_kit.trials.processes import list_recorded_files
from pggan_kit.trials.values import list_quantities

ANALYSES = "analyses"
"""Name of the folder of later analyses in an ablation's folder."""

EVALUATION = "evaluation.json"
"""Name of the file that says how the runs of a later analysis were evaluated."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
"""Pattern of the names of analyses, which name folders."""

SHOWN = 3
"""Maximum number of trials that a note names."""


def analyse(folder: str | Path) -> dict[str, Any]:
    """Analyse what has ended of an ablation; train nothing.

    Where all trials have ended, `results.csv`, `analysis.json` and `table.txt` are written as `ablate` writes them,
    unless some results are in `results.csv` alone, or the folder is read-only: then the files stay as they are. Of an
    unfinished ablation nothing is written, and no contrast has a verdict.

    Args:
        folder: The ablation's folder.

    Returns:
        The analysis, see `analysis.analyse_results`. Of an unfinished ablation also `unfinished`, the names and seeds
        of the trials that have not ended. Of that, and of one in a read-only folder, also a `note` for people.

    Raises:
        UserError: The folder holds no ablation, none of its trials has ended, or a file is damaged.
    """
    folder = Path(folder)
    plan = plans.load_plan(folder)
    results = read_trials(plan, folder)
    needed, _ = conduct.select_shown(plan, results)
    is_writable = os.access(folder, os.W_OK)
    if set(needed) <= results.keys() and is_writable:
        with RunLock(folder):
            return conduct.conclude_ablation(plan, folder)

    # The folders of runs may be gone, or were never copied beside the results.
    results = {**read_table(plan, folder), **results}
    needed, shown = conduct.select_shown(plan, results)
    unfinished = [key for key in needed if key not in results]
    _require_results(folder, shown)
    analysis = analyse_results(plan, shown, decides=not unfinished)
    if unfinished:
        analysis["unfinished"] = [list(key) for key in unfinished]
        analysis["note"] = f"UNFINISHED: {_describe_unfinished(needed, unfinished)}. What it says now may change."
    elif not is_writable:
        analysis["note"] = f"Nothing was written, since {folder} is read-only."
    return analysis


def _require_results(folder: Path, shown: Results) -> None:
    """Check that there is a result that may be shown.

    Raises:
        RunError: There is none.
    """
    if not shown:
        raise RunError(
            f"{folder} has no results yet, or none that may be looked at: continue it with `pggan-kit ablate`"
        )


def _describe_unfinished(needed: Sequence[Key], unfinished: Sequence[Key]) -> str:
    count = len(needed)
    names = ", ".join(f"{name} {seed}" for name, seed in unfinished[:SHOWN])
    if len(unfinished) > SHOWN:
        names += ", ..."
    return f"{len(unfinished)} of {count} trials have not ended ({names}), so no contrast has a verdict"


def evaluate_again(
    folder: str | Path,
    name: str,
    bindings: Sequence[str] = (),
    *,
    average: str | float | None = None,
    averages: Sequence[str | float] = (),
    curves: Sequence[str] = (),
    quality: Mapping[str, float] | None = None,
    primary: str | None = None,
    margin: float | None = None,
    plugins: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Evaluate the runs of an ablation that have ended in another way, and compare them; train nothing.

    All that it gives is exploratory, and is written to `analyses/NAME/`, beside the planned analysis, which stays as it
    is. Called again with the same arguments, it evaluates what has ended or changed since.

    Args:
        folder: The ablation's folder.
        name: The analysis.
        bindings: Bindings of the evaluation that replace or complete those of the plan. Where they choose other
            metrics (`train.metrics`), the plan's settings of metrics and features do not hold.
        average: Average of the generator, see `settings.Ablation`; None for the plan's.
        averages: Further averages, instead of the plan's: their values are listed as `FID short`.
        curves: Values that the runs measured at their ticks, instead of the plan's, see `settings.Ablation`. They are
            read from the runs' rows. If nothing else is measured in another way, all other values are those of the
            trials, and the runs need no checkpoints.
        quality: Value to reach, by the name of a curve.
        primary: Name of the value that is compared first; None for the plan's.
        margin: Largest difference of it that counts as none; None for the plan's, if the primary is the plan's too.
        plugins: Files among the plan's plugin files, see `trial.run_trial`.

    Returns:
        The content of `analysis.json` there, see `analysis.analyse_results`, with `evaluated_again` (`name` and what
        was evaluated) and a `note`.

    Raises:
        UserError: The input is wrong, a run is gone, or the analysis of this name was made in another way or has
            results of runs that are gone.
    """
    require_list("bindings", bindings)
    require_list("averages", averages)
    require_list("curves", curves)
    gin_files.parse_text("\n".join(bindings), OVERRIDE)
    _require_folder_name(name)
    folder = Path(folder)

    # The trials' plan, in which what this call names takes the place of its own evaluation.
    planned = plans.load_plan(folder)
    files = list_recorded_files(folder / plans.PLAN, planned.plugins, plugins, "ablate")
    try:
        plan = _replace_endpoints(planned, bindings, primary, margin)
        plan = _replace_averages(plan, average, averages)
        plan = _replace_curves(plan, curves, quality or {})
    except SettingError as error:
        raise ConfigError(str(error)) from None

    # Curves alone are read from the runs' rows: nothing is measured, and no checkpoint is needed.
    measures = not (curves or quality) or bool(bindings or averages) or average is not None
    needed, ended = conduct.select_shown(planned, read_trials(planned, folder))
    _require_results(folder, ended)

    # An analysis of this name that was made in another way stays as it is.
    target = folder / ANALYSES / name
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {target}: {error.strerror}") from error
    with RunLock(target):
        _fix_evaluation(plan, target)
        irreplaceable = describe_irreplaceable(planned, target, ended)
        if irreplaceable is not None:
            raise RunError(f"{irreplaceable}: put back what is missing, or give this analysis another name")
        plan, results = _collect_results(plan, folder, target, ended, files, measures)
        _require_stated(plan, results)
        analysis = _analyse_again(plan, name, results, needed)
        analysis["hash"] = planned.hash
        write_atomically(target / TABLE, conduct.format_csv(plan, results).encode())
        conduct.write_analysis(analysis, target)
    return analysis


def _require_stated(plan: Plan, results: Results) -> None:
    """Check that it is known which values of the primary are better.

    Raises:
        ConfigError: It is not.
    """
    if find_quantity(plan.quantities, plan.primary) is None:
        reason = "none of its metrics states whether lower or higher values of it are better"
        if all(result["failed"] for result in results.values()):
            reason = "all runs that have ended have failed, and none has values of another metric than the plan's"
        raise ConfigError(f"--primary {plan.primary} cannot be compared: {reason}")


def _require_folder_name(name: str) -> None:
    """Check that an analysis can have a folder of its name.

    Raises:
        ConfigError: It cannot.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--evaluate-again names a folder: {name!r} must begin with a letter or digit, and go on with these and "
            ". - _"
        )


def _collect_results(
    plan: Plan, folder: Path, target: Path, ended: Results, plugins: Sequence[RecordedFile], measures: bool
) -> tuple[Plan, Results]:
    """Return the results of runs that are evaluated in another way, and the plan with what is stated of their values.

    Args:
        plan: The plan, with the other evaluation.
        folder: The ablation's folder.
        target: The folder of this analysis.
        ended: Results of the trials that have ended.
        plugins: The plan's plugin files.
        measures: Whether runs are measured, or only their curves reduced.
    """
    # Endpoints of curves need no measuring.
    endpoints = _find_endpoints(plan, folder, ended, plugins)
    plan = dataclasses.replace(plan, quantities={**plan.quantities, **endpoints})
    if not measures:
        return plan, _reduce_all(plan, folder, ended, plugins)

    # Measured values have the direction and the scale that their metrics state.
    results = _evaluate_all(plan, folder, target, ended, plugins)
    quantities = {**_find_quantities(plan, folder, results, plugins), **endpoints}
    return dataclasses.replace(plan, quantities=quantities), results


def _replace_endpoints(plan: Plan, bindings: Sequence[str], primary: str | None, margin: float | None) -> Plan:
    """Return a plan whose runs are evaluated in another way, and looked at once: it decides and confirms nothing.

    Raises:
        ConfigError: The margin is missing.
        SettingError: It is out of range.
    """
    # A margin is in the units of one value.
    if primary not in (None, plan.primary) and margin is None:
        raise ConfigError(
            f"--primary {primary} needs --margin as well, since the plan's margin is that of {plan.primary}"
        )
    if margin is not None:
        check_above("--margin", margin, 0)
        check_finite("--margin", margin)

    # Looks and confirming values belong to the plan's own primary.
    defaults = list_defaults(Plan)
    once = {name: defaults[name] for name in ("looks", "spending", "futility", "confirm")}
    return dataclasses.replace(
        plan,
        **once,
        evaluation=merge_bindings(plan.evaluation, bindings),
        primary=plan.primary if primary is None else primary,
        margin=plan.margin if margin is None else float(margin),
    )


def _replace_averages(plan: Plan, average: str | float | None, averages: Sequence[str | float]) -> Plan:
    """Return a plan with other averages, where any are named.

    Raises:
        ConfigError: One is named twice.
        SettingError: A width is out of range.
    """
    if average is None and not averages:
        return plan
    first = plan.average if average is None else average
    for each in (first, *averages):
        if isinstance(each, (int, float)):
            check_between("--average", each, 0, LARGEST_WIDTH, low_included=False, instead="a name")
    names = [name_average(each) for each in (first, *averages) if each is not None]
    if len(set(names)) < len(names):
        raise ConfigError(f"--average must name each average once, not {', '.join(names)}")
    return dataclasses.replace(plan, average=first, averages=list(averages))


def _replace_curves(plan: Plan, curves: Sequence[str], quality: Mapping[str, float]) -> Plan:
    """Return a plan with other curves, where a curve or a quality is named; the plan's own if no curve is.

    Raises:
        ConfigError: A curve is named twice, or a quality is none of a curve.
        SettingError: A quality is not finite.
    """
    if not curves and not quality:
        return plan
    curves = curves or plan.curves
    if len(set(curves)) < len(curves):
        raise ConfigError(f"--curve must name each value once, not {', '.join(curves)}")
    for name, value in quality.items():
        if name not in curves:
            raise ConfigError(f"--quality names {name!r}, which is no curve: add --curve {name}")
        check_finite("--quality", value)
    return dataclasses.replace(plan, curves=list(curves), quality={name: float(quality[name]) for name in quality})


def merge_bindings(planned: Sequence[str], bindings: Sequence[str]) -> list[str]:
    """Return the planned bindings of an evaluation that others leave in effect, and those."""
    replaced = gin_files.parse_overrides(bindings)
    chooses_metrics = "train.metrics" in [binding.name for binding in replaced]

    def is_replaced(binding: Binding) -> bool:
        # Settings of metrics that are not chosen any more would be an error.
        is_idle = chooses_metrics and binding.selector.partition(".")[0] in ("metrics", "features")
        return is_idle or binding in replaced

    return [*gin_files.leave_out(planned, is_replaced), *bindings]


def _fix_evaluation(plan: Plan, target: Path) -> None:
    """Write how the runs are evaluated; if an earlier call has evaluated any, compare it with what that one wrote.

    Raises:
        RunError: They were evaluated in another way.
    """
    content = _describe_evaluation(plan)
    path = target / EVALUATION
    has_results = (target / TABLE).exists() or any(_locate_result(target, *key).exists() for key in plan.list_runs())
    if not has_results:
        write_atomically(path, (json_text(content, indent=1) + "\n").encode())
        return

    # Values that were measured in two ways cannot be compared.
    with explain_damage(path):
        earlier = json.loads(read_text(path))
        differing = [key for key in content if earlier[key] != content[key]]
    if differing:
        key = differing[0]
        raise RunError(
            f"{target} was made with another {key} ({earlier[key]}, and now {content[key]}): give this one another name"
        )


def _locate_result(target: Path, name: str, seed: int) -> Path:
    """Return the file of the result of a run that was evaluated again."""
    return target / f"{name}-{seed}.json"


def _describe_evaluation(plan: Plan) -> dict[str, Any]:
    return {
        "evaluation": plan.evaluation,
        "average": plan.average,
        "averages": plan.averages,
        "curves": plan.curves,
        "quality": plan.quality,
        "primary": plan.primary,
        "margin": plan.margin,
    }


def _evaluate_all(plan: Plan, folder: Path, target: Path, ended: Results, plugins: Sequence[RecordedFile]) -> Results:
    """Return the results of all runs that have ended, evaluating those that this analysis has not or not any more."""
    _require_evaluable(plan, folder, target, ended, plugins)
    results: Results = {}
    for key in track_items(ended, "evaluating again", len(ended), "runs"):
        # A run that failed has no generator to compare.
        if ended[key]["failed"]:
            results[key] = ended[key]
            continue
        name, seed = key
        run = trials.locate_run(plan, folder, name, seed)
        try:
            result = _evaluate_one(plan, run, _locate_result(target, name, seed), plugins)
        except UserError as error:
            raise type(error)(f"{name} {seed}: {error}") from error
        # Where its run comes from is still true.
        origins: dict[str, Any] = {entry: ended[key][entry] for entry in ("adopted", "tuned") if entry in ended[key]}
        results[key] = {**result, **origins}
    return results


def _require_evaluable(plan: Plan, folder: Path, target: Path, ended: Results, plugins: Sequence[RecordedFile]) -> None:
    """Check that each run that this analysis has not evaluated yet is there, with the averages that it asks for.

    Raises:
        UserError: One is not; the message names it. Nothing has been evaluated then.
    """
    for (name, seed), result in ended.items():
        if result["failed"]:
            continue
        # A run without its last checkpoint has no generator that could be measured.
        run = trials.locate_run(plan, folder, name, seed)
        try:
            trials.read_last_entry(run)
            has_averages = plan.average is not None or plan.averages
            if has_averages and not _locate_result(target, name, seed).exists():
                prepared, files = prepare_run(run, plugins, needs_data=False)
                trials.require_loadable_averages(plan, prepared, files)
        except UserError as error:
            raise type(error)(f"{name} {seed}: {error}") from error


def _evaluate_one(plan: Plan, run: Path, path: Path, plugins: Sequence[RecordedFile]) -> dict[str, Any]:
    """Return the result of a run; that of an earlier call where the run's last checkpoint is still the same."""
    entry = trials.read_last_entry(run)
    earlier = trials.read_result(path.parent, path.name)
    if earlier is not None and earlier.get("checkpoint") == entry.sha256:
        return earlier
    result = {
        "checkpoint": entry.sha256,
        **trials.describe_result(None, entry.images, trials.evaluate_run(plan, run, plugins)),
    }
    write_atomically(path, (json_text(result, indent=1) + "\n").encode())
    return result


def _reduce_all(plan: Plan, folder: Path, ended: Results, plugins: Sequence[RecordedFile]) -> Results:
    """Return the results of all runs that have ended with the endpoints of other curves, and measure nothing."""
    results: Results = {}
    for key, result in ended.items():
        results[key] = result
        if result["failed"]:
            continue
        try:
            # The new endpoints take the place of the old ones.
            endpoints = trials.reduce_curves(plan, trials.locate_run(plan, folder, *key), plugins)
            replaced = {row["metric"] for row in endpoints}
            rows = [row for row in result["rows"] if row["metric"] not in replaced] + endpoints
            trials.require_primary(plan, rows)
        except UserError as error:
            raise type(error)(f"{key[0]} {key[1]}: {error}") from error
        results[key] = {**result, "rows": rows}
    return results


def _find_endpoints(
    plan: Plan, folder: Path, ended: Results, plugins: Sequence[RecordedFile]
) -> dict[str, dict[str, str]]:
    """Return `direction` and `scale` of the endpoints of the plan's curves.

    Raises:
        ConfigError: A curve is no value that the runs measured at their ticks, or a quality has no logarithm.
    """
    runs: dict[str, Path] = {}
    for (name, seed), result in ended.items():
        if not result["failed"]:
            runs.setdefault(name, trials.locate_run(plan, folder, name, seed))
    if not plan.curves or not runs:
        return {}

    # What is stated of the curves, by the plan or by the runs' own metrics.
    stated: dict[str, dict[str, str]] = {}
    for name in plan.curves:
        quantity = find_quantity(plan.quantities, name)
        if quantity is None:
            quantity = _find_quantity_at_ticks(name, next(iter(runs.values())), plugins)
        if name in plan.quality and quantity["scale"] == "log" and plan.quality[name] <= 0:
            raise ConfigError(f"--quality of {name} must be above 0, where it has a logarithm")
        stated[name] = quantity

    # Variants may have stages of other sizes, each of which has an endpoint of its own.
    sizes: dict[str, None] = {}
    for run in runs.values():
        prepared, _ = prepare_run(run, plugins, needs_data=False)
        sizes |= dict.fromkeys(stage.size for stage in prepared.resolve_schedule().stages)
    return list_endpoint_quantities(plan.curves, plan.quality, stated, sizes)


def _find_quantity_at_ticks(name: str, run: Path, plugins: Sequence[RecordedFile]) -> dict[str, str]:
    """Return `direction` and `scale` of a value that a run measured at its ticks.

    Raises:
        ConfigError: It measured no such value.
    """
    quantities = prepare_run(run, plugins)[0].built.experiment.list_quantities()
    if name not in quantities:
        measured = ", ".join(quantities) or "nothing"
        raise ConfigError(f"--curve {name}: {run} measured {measured} at its ticks, and no {name}")
    return {"direction": quantities[name].direction, "scale": quantities[name].scale}


def _find_quantities(
    plan: Plan, folder: Path, results: Results, plugins: Sequence[RecordedFile]
) -> dict[str, dict[str, str]]:
    """Return what the metrics of the evaluation state of their values."""
    for key, result in results.items():
        if not result["failed"]:
            prepared, _ = prepare_run(
                trials.locate_run(plan, folder, *key), plugins, None, [KEEP_NONE, *plan.evaluation]
            )
            return list_quantities(prepared.built.experiment.metrics, "ablate.evaluation")
    return plan.quantities


def _analyse_again(plan: Plan, name: str, results: Results, needed: Sequence[Key]) -> dict[str, Any]:
    """Return the analysis of runs that were evaluated again, without verdicts."""
    analysis = analyse_results(plan, results, decides=False)
    analysis["evaluated_again"] = {"name": name, **_describe_evaluation(plan)}
    note = f"EXPLORATORY: evaluated again as {name}; the planned analysis is that of the ablation's folder."
    unfinished = [key for key in needed if key not in results]
    if unfinished:
        analysis["unfinished"] = [list(key) for key in unfinished]
        note += f" UNFINISHED: {_describe_unfinished(needed, unfinished)}."
    analysis["note"] = note
    return analysis
