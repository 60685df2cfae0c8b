"""Conduct sweeps from the first trial to the best values, in as many sessions and on as many machines as it takes."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.api.prepare import prepare
from pggan_kit.components import Launcher, Trial
from pggan_kit.errors import RunError, TrainingError
from pggan_kit.plugin_host.plugin_files import RecordedFile
from pggan_kit.sweeps import plan as plans
from pggan_kit.sweeps.plan import SweepPlan
from pggan_kit.sweeps.spaces import bind_values
from pggan_kit.sweeps.study import LOCKS, Study, locate_trial_lock
from pggan_kit.system.activities import report_activity
from pggan_kit.system.files import explain_damage, read_text, write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import hold_when_free
from pggan_kit.trials import processes
from pggan_kit.trials.processes import Say, list_recorded_files

BEST = "best.json"
"""Name of the file with the best values, for programs."""

BEST_CONFIG = "best.gin"
"""Name of the file with the experiment and its best values, which `pggan-kit train` takes."""

TABLE = "trials.csv"
"""Name of the file with a row for each trial."""

ENDED = ("done", "ended early")
"""States of trials that have ended, see `Study.list_trials`."""

PREPARATION = processes.PREPARATION.format(module="pggan_kit.sweeps.trial")
"""Python code that imports what all trials import."""

Sweeps = Mapping[Path, SweepPlan]
"""Plans of sweeps, by their folders."""


@contextlib.contextmanager
def hold_own_lock(folder: Path) -> Iterator[Path]:
    """Let the trials of this process run within a block, beside those of other machines.

    Args:
        folder: The sweep's folder.

    Yields:
        The file whose lock is held.
    """
    path = folder / LOCKS / f"sweep-{platform.node()}-{os.getpid()}.lock"
    try:
        with processes.hold_processes(path):
            yield path.resolve()
    finally:
        path.unlink(missing_ok=True)


def run_sweeps(
    sweeps: Sweeps, launcher: Launcher, owner: Path, say: Say = print, plugins: Sequence[str | Path] = ()
) -> None:
    """Run the trials of sweeps that have not ended, all through one launcher.

    Args:
        sweeps: The sweeps, whose plans are written to their folders at the first start; later they must be the same.
        launcher: Launcher that runs the trials.
        owner: File whose lock this process holds as long as the trials may run.
        say: Function that is called with one line for each trial that ends, or has to wait.
        plugins: Files among the plans' plugin files that the user named.

    Raises:
        RunError: A folder holds another sweep.
        TrainingError: Some trials did not end; the message names their logs.
        Interrupted: A signal stopped it; called again, it continues.
    """
    # Each folder gets its plan, or has the same one already.
    studies = {}
    for folder, plan in sweeps.items():
        studies[folder] = _open_study(folder, plan, plugins)

    # Rounds of trials, as long as a study asks for more.
    with processes.keep_finished_trials():
        while _launch_round(studies, launcher, owner, say):
            pass
    for folder, study in studies.items():
        _conclude(folder, study, plugins)


def _open_study(folder: Path, plan: SweepPlan, plugins: Sequence[str | Path]) -> Study:
    """Write a plan to its folder, or compare it with the one there; return its study."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: {error.strerror}") from error
    # Another machine may begin at the same time.
    with hold_when_free(folder / LOCKS / "plan.lock", lambda holder: None):
        plans.require_same_plan(plan, folder)
        plans.write_plan(plan, folder)
    return Study(plan, folder)


def _launch_round(studies: Mapping[Path, Study], launcher: Launcher, owner: Path, say: Say) -> bool:
    """Launch a process for each trial that is missing, and wait for those of other machines.

    Returns:
        Whether trials may be left that the next round can end.

    Raises:
        TrainingError: Trials have not ended, nobody runs them, and the round has changed nothing.
    """
    # A process for each trial that has not ended, whatever their numbers are.
    launched = []
    for folder, study in studies.items():
        count = study.plan.trials - _count_ended(study)
        launched += [_make_process(folder, study.plan, number, owner) for number in range(count)]
    if not launched:
        return False

    # A process takes the next trial when it starts, so that suggestions go by the trials that have ended by then.
    before = _list_outcomes(studies)
    total = sum(study.plan.trials for study in studies.values())
    said = {(folder, row["trial"]) for folder, study in studies.items() for row in _list_ended(study)}
    with report_activity("running trials", total, "trials") as activity:
        activity.advance(len(said))

        def report_end(trial: Trial, code: int) -> None:
            if code != 0:
                say(f"a trial has not ended (exit code {code}), see {trial.log}")
            for folder, study in studies.items():
                for row in _list_ended(study):
                    if (folder, row["trial"]) not in said:
                        said.add((folder, row["trial"]))
                        activity.advance()
                        own_name = f"{folder.name}, " if len(studies) > 1 else ""
                        say(f"{len(said)}/{total} {own_name}{describe_trial(study.plan, row)}")

        launcher.launch(_interleave(launched, len(studies)), report_end)
    if _wait_for_others(studies, say):
        return True

    # A trial that failed has used a process, or several, that others were to have.
    if _list_outcomes(studies) != before:
        return True
    _require_all_ended(studies)
    return False


def _list_outcomes(studies: Mapping[Path, Study]) -> list[tuple[Path, int, bool, list[Any]]]:
    """Return what processes have come to: the trials that have ended, and where processes failed in the others."""
    outcomes = []
    for folder, study in studies.items():
        for row in study.list_trials():
            has_ended = row["state"] in ENDED
            if has_ended or row["attempts"]:
                outcomes.append((folder, row["trial"], has_ended, row["attempts"]))
    return outcomes


def _interleave(launched: list[Trial], sweeps: int) -> list[Trial]:
    """Return processes of all sweeps in turn, so that no sweep waits for another."""
    if sweeps < 2:
        return launched
    return sorted(launched, key=lambda trial: int(trial.name.rpartition(" ")[2]))


def _wait_for_others(studies: Mapping[Path, Study], say: Say) -> bool:
    """Wait for a trial that another machine runs; return whether there was one."""
    # Waiting for one of them is enough: the caller looks again.
    for folder, study in studies.items():
        running = [row["trial"] for row in study.list_trials() if row["state"] == "running"]
        if running:
            say(f"trials {', '.join(map(str, running))} of {folder} run elsewhere: waiting until they have ended")
            with hold_when_free(locate_trial_lock(folder, running[0]), lambda holder: None):
                return True
    return False


def _require_all_ended(studies: Mapping[Path, Study]) -> None:
    """Check that no trial is left.

    Raises:
        TrainingError: Trials have not ended.
    """
    missing = sum(study.plan.trials - _count_ended(study) for study in studies.values())
    if missing:
        logs = " and ".join(str(folder / "logs") for folder in studies)
        raise TrainingError(f"{missing} trials have not ended: see {logs}. The same command goes on with them")


def _make_process(folder: Path, plan: SweepPlan, number: int, owner: Path) -> Trial:
    """Return a process that runs the next trial of a sweep, whichever that is."""
    absolute = folder.resolve()
    arguments = ["sweep-trial", str(absolute), "--owner", str(owner)]
    log = absolute / "logs" / f"{platform.node()}-{number}.log"
    return processes.make_process(f"{plan.name} {number}", arguments, plan.plugins, log, PREPARATION)


def _list_ended(study: Study) -> list[dict[str, Any]]:
    """Return the rows of the trials that have ended, see `Study.list_trials`."""
    return [row for row in study.list_trials() if row["state"] in ENDED]


def _count_ended(study: Study) -> int:
    return len(_list_ended(study))


def describe_trial(plan: SweepPlan, row: Mapping[str, Any]) -> str:
    """Return a line on a trial that has ended."""
    outcome = row["why"] or f"{plan.metric} {row['value']:.4g}"
    return f"trial {row['trial']}: {outcome} ({'; '.join(bind_values(plan.space, row['parameters']))})"


def _conclude(folder: Path, study: Study, plugins: Sequence[str | Path]) -> None:
    """Write `trials.csv`, `best.json` and `best.gin`.

    Raises:
        TrainingError: No trial has a value.
    """
    plan = study.plan
    files = list_recorded_files(folder / plans.PLAN, plan.plugins, plugins, "sweep")
    ended = _list_ended(study)
    write_atomically(folder / TABLE, _format_csv(plan, ended).encode())

    # The best of those that have a value.
    done = [row for row in ended if row["state"] == "done"]
    if not done:
        raise TrainingError(f"{folder}: none of {len(ended)} trials has a value; {TABLE} says why each ended")
    sign = 1.0 if plan.direction == "lower" else -1.0
    best = min(done, key=lambda row: sign * row["value"])
    record = {
        "hash": plan.hash,
        "trial": best["trial"],
        "metric": plan.metric,
        "value": best["value"],
        "bindings": bind_values(plan.space, best["parameters"]),
        "trials": len(ended),
        "ended_early": len(ended) - len(done),
        "seeds": list(plan.seeds),
    }

    # best.json is written last: where it is, the others are.
    text = describe_best(folder, plan, record, files)
    write_atomically(folder / BEST_CONFIG, text.encode())
    write_atomically(folder / BEST, (json_text(record, indent=1) + "\n").encode())


def describe_best(folder: Path, plan: SweepPlan, record: Mapping[str, Any], files: Sequence[RecordedFile]) -> str:
    """Return the content of `best.gin`: the whole experiment with the best values, and where they come from.

    Args:
        folder: The sweep's folder.
        plan: Its plan.
        record: The content of `best.json`.
        files: The plan's plugin files.
    """
    # The text is that of a config that was built with these values.
    bindings = record["bindings"]
    prepared = prepare(folder / plans.CONFIG, bindings, files, absolute_paths=True)
    seeds = ", ".join(record["seeds"])

    # Comments above it say where the values come from.
    lines = [
        f"# The best of {record['trials']} trials of {plan.name}: trial {record['trial']}, with {plan.metric} "
        f"{record['value']:.6g} over seeds {seeds}.",
        "# It was chosen by this value, which is therefore no fair estimate. The values:",
        *(f"#   {line}" for text in bindings for line in text.splitlines()),
    ]
    if plan.plugins:
        named = " ".join(f"--plugin {shlex.quote(path)}" for path in plan.plugins)
        lines.append(f"# It needs {named}")
    return "\n".join([*lines, "", prepared.built.config.text()])


def _format_csv(plan: SweepPlan, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `trials.csv`: a row for each trial that has ended."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    values = [f"{plan.metric} {size}" for size in plan.sizes]
    writer.writerow(["trial", "state", "why", *values, *plan.parameters])
    for row in rows:
        at_stages = [repr(row["stages"][size]) if size in row["stages"] else "" for size in plan.sizes]
        parameters = [row["parameters"].get(name, "") for name in plan.parameters]
        writer.writerow([row["trial"], row["state"], row["why"], *at_stages, *parameters])
    return file.getvalue()


def read_best(folder: Path, plan: SweepPlan) -> dict[str, Any]:
    """Return the content of `best.json`.

    Raises:
        RunError: It is missing, damaged, or of another plan.
    """
    path = folder / BEST
    with explain_damage(path):
        record = json.loads(read_text(path))
        own_hash = record["hash"]
        record["bindings"], record["value"]
    if own_hash != plan.hash:
        raise RunError(f"{path} is of another plan")
    return dict(record)
