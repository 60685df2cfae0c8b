"""Conduct an ablation from its first trial to its table, in as many sessions as it takes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import plan_changes
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.adoption import adopt_runs
from pggan_kit.ablation.analysis import analyse_results, take_looks
from pggan_kit.ablation.archive import FLOOR, TABLE, Key, Results, describe_irreplaceable, read_trials
from pggan_kit.ablation.endpoints import CENSORED
from pggan_kit.ablation.looks import describe_look
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.table import render_text
from pggan_kit.ablation.trial_progress import TrialProgress
from pggan_kit.ablation.tuning import tune_variants
from pggan_kit.components import Launcher, Trial
from pggan_kit.errors import RunError, TrainingError
from pggan_kit.runs.targets import ABLATION, require_target_outside_runs, require_unused_folder
from pggan_kit.system.activities import report_activity
from pggan_kit.system.files import remove_unfinished, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import RunLock, is_locked, read_holder
from pggan_kit.trials import processes
from pggan_kit.trials.processes import Say

PREPARATION = processes.PREPARATION.format(module="pggan_kit.ablation.trial")
"""Python code that imports what all trials import."""

COLUMNS = (
    "variant",
    "seed",
    "stage",
    "images",
    "metric",
    "value",
    "failed",
    "revision",
    "hardware",
    "exploratory",
    "adopted",
    "average",
    "censored",
    "tuned",
    "reason",
)
"""Columns of `results.csv`."""


def run_ablation(
    plan: Plan,
    launcher: Launcher,
    out: Path,
    say: Say = print,
    *,
    adopt: Sequence[Path] = (),
    plugins: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Run the trials that have not ended yet; then write `results.csv`, `analysis.json` and `table.txt`.

    Args:
        plan: The plan as read. The first start writes it to `out`; later it must be the same, except for what was
            added.
        launcher: Launcher that runs the trials.
        out: The ablation's folder.
        say: Function that is called with one line for each trial that ends, or has to wait.
        adopt: Directories of runs that take the places of trials.
        plugins: Files among the plan's plugin files that the user named.

    Returns:
        The analysis, see `analyse_results`.

    Raises:
        RunError: `out` holds another plan, or files that a new ablation would replace, or another process works there.
        TrainingError: Some trials did not end; the message names their logs. There is no analysis then.
        Interrupted: A signal stopped it; called again, it continues.
    """
    require_target_outside_runs("--out", out)
    require_unused_folder("--out", out, ABLATION)
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: {error.strerror}") from error

    with RunLock(out), trials.hold_trials(out):
        # What processes that were killed left here; trials, which may still run, remove their own.
        for folder in (out, out / plans.CONFIGS):
            remove_unfinished(folder, below=False)
        plan = plan_changes.compare_with_fixed(plan, out)
        files = processes.list_recorded_files(out / plans.PLAN, plan.plugins, plugins, "ablate")
        plan = adopt_runs(plan, out, adopt, files)
        plans.write_plan(plan, out)
        with processes.keep_finished_trials():
            tune_variants(plan, out, launcher, trials.locate_owner(out), say, plugins)
            _run_trials(plan, out, launcher, say)
        return conclude_ablation(plan, out)


def _run_trials(plan: Plan, out: Path, launcher: Launcher, say: Say) -> None:
    """Run the trials of the plan; with looks, those that the first look needs, and then what each further one needs."""
    if not plan.looks:
        _run_with_trunks(plan, out, list(plan.list_runs()), launcher, say)
        return

    said = 0
    while True:
        # A look may show that some contrasts need no more runs.
        progress = take_looks(plan, read_trials(plan, out))
        for number in range(said + 1, progress.count + 1):
            say(describe_look(plan, progress, number))
        said = progress.count
        if progress.wanted == progress.shown:
            return
        _run_with_trunks(plan, out, progress.wanted, launcher, say)
        if not set(progress.wanted) <= read_trials(plan, out).keys():
            return


def _run_with_trunks(plan: Plan, out: Path, keys: Sequence[Key], launcher: Launcher, say: Say) -> None:
    """Run the trunks of some trials, and then those of the trials that can begin."""
    trunk_seeds = {seed for name, seed in keys if name in plan.shared}
    trunks = [key for key in plan.list_trunks() if key[1] in trunk_seeds]
    _launch_trials(plan, out, trunks, launcher, say)

    # A variant can begin only where its trunk has ended.
    ready = [key for key in keys if _can_begin(plan, out, key)]
    _launch_trials(plan, out, ready, launcher, say)


def _can_begin(plan: Plan, out: Path, key: Key) -> bool:
    """Return whether a trial starts from scratch or from a trunk that has ended, or was trained before."""
    name, seed = key
    if name not in plan.shared or plan.find_adopted(name, seed) is not None:
        return True
    return trials.read_result(trials.locate_trial(out, TRUNK, seed)) is not None


def _launch_trials(plan: Plan, out: Path, keys: Sequence[Key], launcher: Launcher, say: Say) -> None:
    """Launch the trials that have not ended, and report each as it ends."""
    # A launcher may connect to a cluster, for which nothing to run is no reason.
    waiting = [key for key in keys if trials.read_result(trials.locate_trial(out, *key)) is None]
    if not waiting:
        return
    ended_count = len(keys) - len(waiting)

    # An earlier `ablate` may have been killed just now: the new process of a trial waits for the old one.
    for name, seed in waiting:
        lock = trials.locate_lock(out, name, seed)
        if is_locked(lock):
            say(f"{name} {seed}: {read_holder(lock)} of an earlier `ablate` still runs it; waiting until it has ended")

    def report_end(trial: Trial, code: int) -> None:
        nonlocal ended_count
        ended_count += 1
        activity.advance()
        outcome = "done"
        if code != 0:
            outcome = f"not done (exit code {code}), see {trial.log}"
        say(f"{ended_count}/{len(keys)} {trial.name}: {outcome}")

    progress = TrialProgress(plan, out, keys)
    with report_activity(f"running {progress.noun}", len(keys), progress.noun, progress.describe) as activity:
        activity.advance(ended_count)
        launcher.launch([make_trial(plan, out, *key) for key in waiting], report_end)


def make_trial(plan: Plan, out: Path, name: str, seed: int) -> Trial:
    """Return a trial as a launcher runs it: `pggan-kit trial` in a new process, on this machine or another.

    The command names the plan's plugin files, because the user who runs the ablation named them too; the trial
    compares their content with the plan.
    """
    folder = out.resolve()
    arguments = ["trial", str(folder), name, str(seed), "--with-ablate"]
    log = folder / "logs" / f"{name}-{seed}.log"
    return processes.make_process(f"{name} {seed}", arguments, plan.plugins, log, PREPARATION)


def conclude_ablation(plan: Plan, out: Path) -> dict[str, Any]:
    """Write `results.csv`; if all trials have ended that are needed, also `analysis.json` and `table.txt`.

    Before a look is due, `results.csv` has nothing of the runs that it is about. While some trials have not ended, it
    stays as it is if it has results whose runs are gone.

    Raises:
        TrainingError: Some trials have not ended.
        RunError: Some trials have not ended, and `results.csv` is damaged.
    """
    results = read_trials(plan, out)
    keys, shown = select_shown(plan, results)
    missing = [key for key in keys if key not in results]
    irreplaceable = describe_irreplaceable(plan, out, results) if missing else None
    if irreplaceable is None:
        write_atomically(out / TABLE, format_csv(plan, shown).encode())

    if missing:
        name, seed = missing[0]
        complaint = (
            f"{len(missing)} of {len(keys)} trials have not ended, among them {name} {seed}: see the logs in "
            f"{out / 'logs'}. The same command tries them again; the analysis follows when all have ended"
        )
        if irreplaceable is not None:
            complaint += f". {irreplaceable}: it stays as it is until then"
        raise TrainingError(complaint)

    # The analysis compares whole sets of seeds, so it is written only now.
    with report_activity("comparing variants"):
        analysis = analyse_results(plan, shown)
    write_analysis(analysis, out)
    return analysis


def select_shown(plan: Plan, results: Results) -> tuple[list[Key], Results]:
    """Return the trials that are needed, and the results that may be shown: with looks, those of the looks taken."""
    if not plan.looks:
        return list(plan.list_runs()), results
    progress = take_looks(plan, results)
    return progress.wanted, {key: results[key] for key in progress.shown}


def write_analysis(analysis: Mapping[str, Any], folder: Path) -> None:
    """Write `analysis.json` and `table.txt`."""
    write_atomically(folder / "analysis.json", (json_text(analysis, indent=1) + "\n").encode())
    write_atomically(folder / "table.txt", render_text(analysis).encode())


def format_csv(plan: Plan, results: Results) -> str:
    """Return `results.csv`: a row for each value and noise floor, empty where a trial failed or it is not finite."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in plan.variants:
        for seed in plan.select_seeds(name):
            if (name, seed) in results:
                writer.writerows(_make_csv_rows(plan, name, seed, results[name, seed]))
    return file.getvalue()


def _make_csv_rows(plan: Plan, name: str, seed: int, result: dict[str, Any]) -> list[list[Any]]:
    """Return the rows of one trial; of a failed one a single row without a value, and with the reason."""
    failed = result["failed"] is not None
    last_cells = [
        int(failed),
        result["revision"],
        result["hardware"],
        int(plan.is_exploratory(name, seed)),
        result.get("adopted", ""),
    ]
    tuned = "; ".join(result.get("tuned", ()))
    if failed:
        return [[name, seed, "", result["images"], plan.primary, "", *last_cells, "", "", tuned, result["failed"]]]

    # A noise floor is a row of its own, after the value that it belongs to.
    rows = []
    for row in result["rows"]:
        first_cells = [name, seed, row["stage"], row["images"]]
        value = _format_value(row["value"])
        own_cells = [*last_cells, row.get("average") or "", row.get(CENSORED) or "", tuned, ""]
        rows.append([*first_cells, row["metric"], value, *own_cells])
        floor = _format_value(row["floor"])
        if floor:
            rows.append([*first_cells, f"{row['metric']}{FLOOR}", floor, *own_cells])
    return rows


def _format_value(value: float | None) -> str:
    """Return a cell with all digits of a value; an empty one where it is not finite, as after it was kept as JSON."""
    return "" if value is None or not math.isfinite(value) else repr(value)
