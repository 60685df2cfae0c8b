"""An ablation from its first trial to its table, in as many sittings as it takes."""

from __future__ import annotations

import csv
import io
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation import trial as trials
from pggan_kit.ablation.analysis import analyse
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.ablation.table import text
from pggan_kit.components import Launcher, Trial
from pggan_kit.errors import Interrupted, RunError, TrainingError
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import RunLock
from pggan_kit.system.signals import StoppedAtOnce

COLUMNS = (
    *("variant", "seed", "stage", "images", "metric", "value", "failed", "revision", "hardware"),
    "exploratory",
)
Say = Callable[[str], None]
Key = tuple[str, int]


def run(plan: Plan, launcher: Launcher, out: Path, say: Say = print) -> dict[str, Any]:
    """Run what has not ended yet; then write `results.csv`, `analysis.json` and `table.txt`.

    Args:
        plan: as read. At the first start it is written to `out`; later it must be the same, but for more seeds.
        launcher: where trials run.
        out: the ablation's folder.
        say: told of each trial that ends.

    Returns:
        What `analyse` found.

    Raises:
        RunError: another plan was begun in `out`, or another process works there.
        TrainingError: trials could not be brought to an end; the message names their logs. There is no analysis then.
        Interrupted: a signal stopped it; called again, it goes on.
    """
    try:
        (out / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--out {out}: {error.strerror}") from error
    with RunLock(out):
        plan = plans.opened(plan, out)
        try:
            _launch(plan, out, list(plan.trunks()), launcher, say)
            ready = [key for key in plan.runs() if _has_trunk(plan, out, key)]
            _launch(plan, out, ready, launcher, say)
        except KeyboardInterrupt as error:
            number = error.exit_code - 128 if isinstance(error, StoppedAtOnce) else signal.SIGINT
            raise Interrupted(number, "stopped; what has ended is kept, go on with the same command") from None
        return conclude(plan, out)


def _has_trunk(plan: Plan, out: Path, key: Key) -> bool:
    name, seed = key
    return name not in plan.shared or trials.result(trials.folder_of(out, TRUNK, seed)) is not None


def _launch(plan: Plan, out: Path, keys: Sequence[Key], launcher: Launcher, say: Say) -> None:
    waiting = [key for key in keys if trials.result(trials.folder_of(out, *key)) is None]
    done = len(keys) - len(waiting)

    def ended(trial: Trial, code: int) -> None:
        nonlocal done
        done += 1
        told = "done" if code == 0 else f"not done (exit code {code}), see {trial.log}"
        say(f"{done}/{len(keys)} {trial.name}: {told}")

    launcher.launch([command(plan, out, *key) for key in waiting], ended)


def command(plan: Plan, out: Path, name: str, seed: int) -> Trial:
    """Return a trial as a launcher runs it: `pggan-kit trial` in a new process, on this machine or another.

    It names the plugin files, as whoever runs the ablation did; the trial compares them with the plan.
    """
    line = [sys.executable, "-m", "pggan_kit", "trial", str(out.resolve()), name, str(seed)]
    for path in plan.plugins:
        line += ["--plugin", path]
    return Trial(f"{name} {seed}", line, out.resolve() / "logs" / f"{name}-{seed}.log", Path.cwd())


def conclude(plan: Plan, out: Path) -> dict[str, Any]:
    """Write `results.csv`; if all trials have ended, also `analysis.json` and `table.txt`.

    Raises:
        TrainingError: some have not.
    """
    found = {key: trials.result(trials.folder_of(out, *key)) for key in plan.runs()}
    results = {key: result for key, result in found.items() if result is not None}
    write_atomically(out / "results.csv", _csv(plan, results).encode())
    missing = [key for key in found if key not in results]
    if missing:
        name, seed = missing[0]
        raise TrainingError(
            f"{len(missing)} of {len(found)} trials have not ended, among them {name} {seed}: see the logs in "
            f"{out / 'logs'}; the same command tries them again. There is no analysis before all have ended"
        )
    analysis = analyse(plan, results)
    write_atomically(out / "analysis.json", (json_text(analysis, indent=1) + "\n").encode())
    write_atomically(out / "table.txt", text(analysis).encode())
    return analysis


def _csv(plan: Plan, results: dict[Key, dict[str, Any]]) -> str:
    """A line for each value and noise floor; without a number where a trial failed, or the value is not finite."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name in plan.variants:
        for seed in plan.seeds_of(name):
            if (name, seed) in results:
                writer.writerows(_lines(plan, name, seed, results[name, seed]))
    return file.getvalue()


def _lines(plan: Plan, name: str, seed: int, result: dict[str, Any]) -> list[list[Any]]:
    after = [int(result["failed"] is not None), result["revision"], result["hardware"], int(seed in plan.exploratory)]
    if result["failed"] is not None:
        return [[name, seed, "", result["images"], plan.primary, "", *after]]
    lines = []
    for row in result["rows"]:
        place = [name, seed, row["stage"], row["images"]]
        lines.append([*place, row["metric"], "" if row["value"] is None else repr(row["value"]), *after])
        if row["floor"] is not None:
            lines.append([*place, f"{row['metric']}_floor", repr(row["floor"]), *after])
    return lines
