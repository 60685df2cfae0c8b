"""Check where commands write: what makes a folder a run or an ablation is never replaced by what is drawn from it."""

from __future__ import annotations

from pathlib import Path

from pggan_kit.errors import RunError
from pggan_kit.system.locks import LOCK

FILES_OF_A_RUN = ("averages", "checkpoints", "config.gin", "log.txt", "operative.gin", "run.json", "stats.jsonl", LOCK)
"""What a run needs, in its folder; drawings beside these are replaced freely."""

FILES_OF_AN_ABLATION = (
    "analyses",
    "analysis.json",
    "configs",
    "locks",
    "logs",
    "plan.json",
    "results.csv",
    "table.txt",
    "tuning",
    LOCK,
)
"""What an ablation needs, in its folder, beside its trials, which are runs."""

FILES_OF_A_SWEEP = ("base.gin", "best.gin", "best.json", "config.gin", "locks", "logs", "study.journal", "sweep.json")
"""What a sweep needs, in its folder, beside its trials, which are runs."""

MARKED = (
    ("run", "run.json", FILES_OF_A_RUN),
    ("ablation", "plan.json", FILES_OF_AN_ABLATION),
    ("sweep", "sweep.json", FILES_OF_A_SWEEP),
)
"""Kinds of folders, the file by which each is known, and what it needs."""


def require_target_outside_runs(option: str, target: Path) -> None:
    """Check that a target is neither the folder of a run nor a file that a run or an ablation needs.

    Args:
        option: The option that names the target, for the message.
        target: The file or folder that is to be written.

    Raises:
        RunError: It is.
    """
    # The folder of a run itself.
    resolved = target.resolve()
    if (resolved / "run.json").exists():
        raise RunError(f"{option} {target} is the folder of a run: name another, or a file in it")

    # A file of the run or the ablation that it lies in.
    for folder in resolved.parents:
        inner = resolved.relative_to(folder).parts[0]
        for kind, mark, files in MARKED:
            if inner in files and (folder / mark).exists():
                raise RunError(f"{option} {target} would replace what the {kind} {folder} needs: name another file")
