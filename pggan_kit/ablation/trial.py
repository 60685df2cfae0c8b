"""One trial: a variant with one seed, or a trunk. It is trained or resumed, evaluated, and its result written."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.endpoints import measure_endpoints
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.robustness import name_average, name_value
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.tuning import read_tuned
from pggan_kit.api.average import load_average
from pggan_kit.api.evaluate import evaluate
from pggan_kit.api.prepare import KEEP_NONE, Prepared, prepare, prepare_run
from pggan_kit.errors import ConfigError, DivergedError, RunError, UserError
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.runs.checkpoints import Entry
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.snapshot import STATE
from pggan_kit.system.files import read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import hold_when_free
from pggan_kit.system.provenance import describe_hardware, find_revision
from pggan_kit.trials.processes import Say, hold_processes, list_recorded_files, stop_with_owner
from pggan_kit.trials.same_data import require_same_data
from pggan_kit.trials.training import StageReached, StopAfter, describe_early_end, train_or_resume

RESULT = "result.json"
"""Name of the file that a trial writes when it has ended, whether it finished or failed."""

RESULT_KEYS = {"failed", "images", "rows", "revision", "hardware"}
"""Keys of a result."""

ROW_KEYS = {"metric", "value", "floor"}
"""Keys of each row of a result."""

LOCKS = "locks"
"""Name of the folder of lock files in an ablation's folder."""

ABLATE_LOCK = "ablate.lock"
"""Name of the file that is locked as long as trials may run."""

KEEP_STATE = f"train.keep_stages = '{STATE}'"
"""Binding of a trunk."""


def locate_trial(out: Path, name: str, seed: int) -> Path:
    """Return the run directory of a variant with a seed, or of a seed's trunk."""
    if name == TRUNK:
        return out / "trunks" / str(seed)
    return out / "runs" / name / str(seed)


def locate_run(plan: Plan, out: Path, name: str, seed: int) -> Path:
    """Return the directory of the run of a trial: its own, or that of the run that was adopted."""
    adopted = plan.find_adopted(name, seed)
    return locate_trial(out, name, seed) if adopted is None else Path(adopted["run"])


def locate_lock(out: Path, name: str, seed: int) -> Path:
    """Return the file whose lock the process of a trial holds."""
    return out / LOCKS / f"{name}-{seed}.lock"


def locate_owner(out: Path) -> Path:
    """Return the file whose lock `ablate` holds as long as trials may run."""
    return out / LOCKS / ABLATE_LOCK


@contextlib.contextmanager
def hold_trials(out: Path) -> Iterator[None]:
    """Let trials run within a block: those that are still running after it, or after this process, stop."""
    with hold_processes(locate_owner(out)):
        yield


@contextlib.contextmanager
def stop_with_ablate(out: Path, say: Say) -> Iterator[None]:
    """Stop this process as SIGTERM does, once no `ablate` holds the trials of its folder, within a block."""
    with stop_with_owner(locate_owner(out), "ablate", say):
        yield


def run_trial(out: Path, name: str, seed: int, plugins: Sequence[str | Path] = (), say: Say = print) -> dict[str, Any]:
    """Run a trial to its end, from wherever an earlier process stopped; if that still runs, wait until it has ended.

    Args:
        out: The ablation's folder, which holds its plan.
        name: The variant, or TRUNK.
        seed: A seed of the plan.
        plugins: Files among the plan's plugin files that the user named for this trial; the others run only if a file
            of the same content was named on this machine before. All must have the content that the plan records.
        say: Function that is called with one line before waiting.

    Returns:
        The content of the run directory's `result.json`: `failed` (why the run failed, or None), `rows` as
        `pggan_kit.evaluate` gives them, `images`, `revision` and `hardware`.

    Raises:
        UserError, TrainingError, Interrupted: The trial has not ended; it can be run again.
    """
    # The plan says which trials there are, and what files their plugins are.
    plan = plans.load_plan(out)
    if (name, seed) not in [*plan.list_trunks(), *plan.list_runs()]:
        raise ConfigError(f"trial {name} {seed}: the plan has no such trial")
    files = list_recorded_files(out / plans.PLAN, plan.plugins, plugins, "ablate")

    # No other process may run this trial at the same time.
    def say_waiting(holder: str) -> None:
        say(f"waiting for {holder}, which runs this trial")

    with hold_when_free(locate_lock(out, name, seed), say_waiting):
        return _run_to_result(plan, out, name, seed, files)


def _run_to_result(plan: Plan, out: Path, name: str, seed: int, files: Sequence[RecordedFile]) -> dict[str, Any]:
    """Return the result of a trial, which is run unless an earlier process has done so."""
    folder = locate_trial(out, name, seed)
    earlier_result = read_result(folder)
    if earlier_result is not None:
        return earlier_result

    # A trunk that failed has failed for every variant that would begin from it.
    adopted = plan.find_adopted(name, seed)
    trunk_result = None
    if name in plan.shared and adopted is None:
        trunk_result = read_result(locate_trial(out, TRUNK, seed))
    if trunk_result is not None and trunk_result["failed"]:
        folder.mkdir(parents=True, exist_ok=True)
        result = {**trunk_result, "failed": f"trunk: {trunk_result['failed']}"}
    elif adopted is not None:
        folder.mkdir(parents=True, exist_ok=True)
        result = _evaluate_adopted(plan, out, adopted, files)
    else:
        result = _train_and_evaluate(plan, out, name, seed, files)

    write_atomically(folder / RESULT, (json_text(result, indent=1) + "\n").encode())
    return result


def _evaluate_adopted(
    plan: Plan, out: Path, adopted: Mapping[str, Any], plugins: Sequence[RecordedFile]
) -> dict[str, Any]:
    """Return the result of a trial whose run was trained before.

    Raises:
        RunError: The run is gone, or is not what was adopted, or its data are others by now.
    """
    run = Path(adopted["run"])
    entry = read_last_entry(run)
    if entry.sha256 != adopted["checkpoint"]:
        raise RunError(f"{run} has changed since it was adopted: its last checkpoint is another one")
    prepared, _ = prepare_run(run, plugins, None, [KEEP_NONE, *plan.evaluation])
    require_same_data(prepared, out)
    failed = _describe_unplanned_end(run, plugins)
    rows = [] if failed is not None else evaluate_run(plan, run, plugins)
    result = describe_result(failed, entry.images, rows)
    return {**result, "revision": adopted["revision"], "hardware": adopted["hardware"], "adopted": adopted["run"]}


def read_last_entry(run: Path) -> Entry:
    """Return the row of the last checkpoint of a run.

    Raises:
        RunError: There is no run, or it has no checkpoint.
    """
    entries = RunDirectory.open(run).checkpoints().read_entries()
    if not entries:
        raise RunError(f"{run} holds no checkpoint")
    return entries[-1]


def read_result(folder: Path, name: str = RESULT) -> dict[str, Any] | None:
    """Return the result of a trial that has ended; None if it has not.

    Args:
        folder: The trial's run directory.
        name: Name of the file in it.

    Raises:
        RunError: The file is damaged, or cannot be read.
    """
    path = folder / name
    try:
        result = json.loads(read_text(path))
        _require_whole_result(result)
    except (FileNotFoundError, NotADirectoryError):
        # The trial writes the file last, when it has ended.
        return None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it, and the trial is evaluated again") from error
    return dict(result)


def _require_whole_result(result: Any) -> None:
    """Check what a file holds as the result of a trial.

    Raises:
        ValueError: It is none.
        TypeError: It is none.
    """
    if not set(result) >= RESULT_KEYS:
        raise ValueError("an entry is missing")
    for row in result["rows"]:
        if not set(row) >= ROW_KEYS:
            raise ValueError("a row lacks an entry")
        for name in ("value", "floor"):
            if not isinstance(row[name], int | float | None):
                raise TypeError(f"the {name} of a row is {row[name]!r}, which is no number")


def _train_and_evaluate(plan: Plan, out: Path, name: str, seed: int, plugins: Sequence[RecordedFile]) -> dict[str, Any]:
    """Return the result of a trial that has not ended before."""
    failed = _train_to_end(plan, out, name, seed, plugins)
    folder = locate_trial(out, name, seed)
    images = RunDirectory(folder).checkpoints().read_entries()[-1].images

    # Neither a trunk nor a failed run has a generator to compare.
    rows = []
    if failed is None and name != TRUNK:
        failed = _describe_unplanned_end(folder, plugins)
        if failed is None:
            rows = evaluate_run(plan, folder, plugins)
    result = describe_result(failed, images, rows)
    if plan.tune:
        result["tuned"] = read_tuned(plan, out, name)["bindings"]
    return result


def describe_result(failed: str | None, images: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a trial that this process has trained or evaluated."""
    return {
        "failed": failed,
        "images": images,
        "rows": rows,
        "revision": find_revision(),
        "hardware": describe_hardware(),
    }


def _train_to_end(plan: Plan, out: Path, name: str, seed: int, plugins: Sequence[RecordedFile]) -> str | None:
    """Train or resume a run until it ends; return why it diverged, or None if it did not."""
    folder = locate_trial(out, name, seed)
    own_plugins: list[Any] = [*plugins]
    bindings = plan.bind_seed(seed)
    start_from = None
    if name == TRUNK:
        config = plans.check_config(plan, out, plan.shared[0])
        own_plugins.append(StopAfter(plan.branch or 0))
        # The variants begin from its last state, whatever they keep of their own stages.
        bindings = [*bindings, KEEP_STATE]
    else:
        config = plans.check_config(plan, out, name)
        if plan.tune:
            bindings = [*bindings, *read_tuned(plan, out, name)["bindings"]]
        if name in plan.shared:
            start_from = f"{locate_trial(out, TRUNK, seed)}@{plan.branch}"

    # Values of runs that were trained on other data, or compared with other ones, are not compared.
    as_evaluated = [*bindings, KEEP_NONE, *plan.evaluation]
    require_same_data(prepare(config, as_evaluated, own_plugins), out)

    # A run that diverges has ended: that is its result.
    try:
        train_or_resume(folder, config, bindings, own_plugins, start_from)
    except StageReached:
        return None
    except DivergedError as error:
        return str(error)
    return None


def _describe_unplanned_end(folder: Path, plugins: Sequence[RecordedFile]) -> str | None:
    """Return why a run that trained to its end has no value to compare: it did not get to the last planned stage.

    Returns:
        The reason; None for a run that got there.
    """
    prepared, _ = prepare_run(folder, plugins, needs_data=False)
    return describe_early_end(folder, prepared.resolve_schedule().list_planned_stages()[-1].size)


def evaluate_run(plan: Plan, folder: Path, plugins: Sequence[RecordedFile]) -> list[dict[str, Any]]:
    """Return the rows of a run's evaluation: of its metrics, of further averages, and of the endpoints of its curves.

    Raises:
        ConfigError: The primary is not among them.
        RunError: The run measured no curve at its ticks.
    """
    rows = evaluate(folder, bindings=plan.evaluation, plugins=plugins, average=plan.average)
    rows += _evaluate_further_averages(plan, folder, plugins, rows)
    rows += reduce_curves(plan, folder, plugins)
    require_primary(plan, rows)
    return rows


def require_loadable_averages(plan: Plan, prepared: Prepared, files: RunDirectory) -> None:
    """Check that a run has the averages with which it will be evaluated, or all that they are made of.

    Raises:
        RunError: It has not; the message names the average.
    """
    for average in (plan.average, *plan.averages):
        if average is None:
            continue
        try:
            # How far an average is from its profile is said when it is evaluated.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                load_average(prepared, files, prepared.resolve_schedule(), None, average)
        except UserError as error:
            raise RunError(f"its average {average} cannot be made: {error}") from error


def reduce_curves(plan: Plan, folder: Path, plugins: Sequence[RecordedFile]) -> list[dict[str, Any]]:
    """Return the rows of the endpoints of a run's curves, which need no checkpoint.

    Raises:
        RunError: The run measured a curve at no tick.
    """
    if not plan.curves:
        return []
    prepared, files = prepare_run(folder, plugins, needs_data=False)
    sizes = [stage.size for stage in prepared.resolve_schedule().stages]
    return measure_endpoints(files, plan.curves, plan.quality, plan.quantities, sizes)


def require_primary(plan: Plan, rows: Sequence[dict[str, Any]]) -> None:
    """Check that rows hold the primary.

    Raises:
        ConfigError: They do not.
    """
    metrics = [row["metric"] for row in rows]
    if plan.primary not in metrics:
        raise ConfigError(f"ablate.primary is {plan.primary!r}, and the evaluation gives {', '.join(metrics)}")


def _evaluate_further_averages(
    plan: Plan, folder: Path, plugins: Sequence[RecordedFile], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of a run's evaluation with each further average, which their names name: `FID short`.

    Args:
        plan: The plan.
        folder: The run's directory.
        plugins: The plan's plugin files.
        rows: Rows of the evaluation with the first average.
    """
    further_rows = []
    for average in plan.averages:
        own_rows = rows
        if name_average(average) not in [row["average"] for row in rows]:
            own_rows = evaluate(folder, bindings=plan.evaluation, plugins=plugins, average=average)
        # Values of a run's stages have no average.
        for row in own_rows:
            if row["average"] is not None:
                further_rows.append({**row, "metric": name_value(row["metric"], average)})
    return further_rows
