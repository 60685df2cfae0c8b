"""One trial: a variant with one seed, or a trunk. Trained or resumed, evaluated, and its result written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pggan_kit.ablation import plan as plans
from pggan_kit.ablation.plan import Plan
from pggan_kit.ablation.settings import TRUNK
from pggan_kit.api.evaluate import evaluate
from pggan_kit.api.train import resume, train
from pggan_kit.errors import ConfigError, DivergedError, Interrupted, RunError
from pggan_kit.hookspecs import hookimpl
from pggan_kit.plugin_host.files import RecordedFile
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.schedule import Stage
from pggan_kit.system.files import write_atomically
from pggan_kit.system.json_text import json_text
from pggan_kit.system.locks import RunLock
from pggan_kit.system.provenance import hardware, revision

RESULT = "result.json"
"""In the folder of a trial that has ended, well or dead."""


class TrunkEnd(Interrupted):
    """The last stage that the variants have in common is over."""

    def __init__(self) -> None:
        super().__init__(None, "the trunk ends here")


class StopAfter:
    """A plugin that ends a run when a stage is over, where branches begin.

    Args:
        stage: its number, from 0.
    """

    def __init__(self, stage: int) -> None:
        self.stage = stage

    @hookimpl
    def after_stage(self, stage: Stage) -> None:
        """End there. The stage's last checkpoint is written."""
        if stage.index == self.stage:
            raise TrunkEnd


def folder_of(out: Path, name: str, seed: int) -> Path:
    """The run directory of a variant with a seed, or of a seed's trunk."""
    return out / "trunks" / str(seed) if name == TRUNK else out / "runs" / name / str(seed)


def run(out: Path, name: str, seed: int, plugins: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Bring a trial to its end, from wherever an earlier process left it.

    Args:
        out: the ablation's folder, in which its plan lies.
        name: a variant, or TRUNK.
        seed: one of the plan's.
        plugins: those of the plan's plugin files that whoever runs this named; others run only if a file of their
            content was named on this machine before. All must have the content that the plan records.

    Returns:
        `failed` (why it died, or None), `rows` as `pggan_kit.evaluate` gives them, `images`, `revision`, `hardware`:
        what is written to the run directory's `result.json`.

    Raises:
        UserError, TrainingError, Interrupted: the trial has not ended; it can be run again.
    """
    plan = plans.load_plan(out)
    _require_planned(plan, name, seed)
    files = plans.recorded_files(out / plans.PLAN, plan.plugins, plugins)
    folder = folder_of(out, name, seed)
    ended = result(folder)
    if ended is not None:
        return ended
    trunk = result(folder_of(out, TRUNK, seed)) if name in plan.shared else None
    if trunk is not None and trunk["failed"]:
        folder.mkdir(parents=True, exist_ok=True)
        found = {**trunk, "failed": f"trunk: {trunk['failed']}"}
    else:
        failed = _trained(plan, out, name, seed, files)
        found = {
            "failed": failed,
            "images": RunDirectory(folder).checkpoints().entries()[-1].images,
            "rows": [] if failed or name == TRUNK else _evaluated(plan, folder, files),
            "revision": revision(),
            "hardware": hardware(),
        }
    write_atomically(folder / RESULT, (json_text(found, indent=1) + "\n").encode())
    return found


def result(folder: Path) -> dict[str, Any] | None:
    """What a trial that has ended left; None where it has not.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / RESULT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"failed", "images", "rows", "revision", "hardware"} <= set(found):
            raise ValueError("an entry is missing")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); remove it, and the trial is evaluated again") from error
    return dict(found)


def _require_planned(plan: Plan, name: str, seed: int) -> None:
    if (name, seed) not in [*plan.trunks(), *plan.runs()]:
        raise ConfigError(f"trial {name} {seed}: the plan has no such trial")


def _trained(plan: Plan, out: Path, name: str, seed: int, plugins: Sequence[RecordedFile]) -> str | None:
    """Train to the end, or go on with it. Returns why the run died, None where it did not."""
    folder, start_from, stops = folder_of(out, name, seed), None, []
    if name == TRUNK:
        config, stops = plans.checked_config(plan, out, plan.shared[0]), [StopAfter(plan.branch or 0)]
    else:
        config = plans.checked_config(plan, out, name)
        if name in plan.shared:
            start_from = f"{folder_of(out, TRUNK, seed)}@{plan.branch}"
    try:
        _go_on(folder, config, seed, [*plugins, *stops], start_from)
    except TrunkEnd:
        return None
    except DivergedError as error:
        return str(error)
    return None


def _go_on(folder: Path, config: Path, seed: int, plugins: Sequence[Any], start_from: str | None) -> None:
    if folder.exists():
        with RunLock(folder):
            begun = (folder / "run.json").exists() and bool(RunDirectory(folder).checkpoints().entries())
            if not begun:
                shutil.rmtree(folder)
        if begun:
            resume(folder, plugins=plugins)
            return
    train(config, [f"train.seed = {seed}"], run_dir=folder, plugins=plugins, start_from=start_from)


def _evaluated(plan: Plan, folder: Path, plugins: Sequence[RecordedFile]) -> list[dict[str, Any]]:
    rows = evaluate(folder, bindings=plan.evaluation, plugins=plugins)
    if plan.primary not in {row["metric"] for row in rows}:
        raise ConfigError(
            f"ablate.primary is {plan.primary!r}, and the evaluation gives {', '.join(row['metric'] for row in rows)}"
        )
    return rows
