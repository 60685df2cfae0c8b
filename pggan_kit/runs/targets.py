"""Check where commands write: what makes a folder a run is never replaced by something drawn from it."""

from __future__ import annotations

from pathlib import Path

from pggan_kit.errors import RunError
from pggan_kit.system.locks import LOCK

FILES_OF_A_RUN = ("checkpoints", "config.gin", "log.txt", "operative.gin", "run.json", "stats.jsonl", LOCK)
"""What a run needs, in its folder; drawings beside these are replaced freely."""


def require_target_outside_runs(option: str, target: Path) -> None:
    """Check that a target is neither the folder of a run nor a file that a run needs.

    Args:
        option: The option that names the target, for the message.
        target: The file or folder that is to be written.

    Raises:
        RunError: It is.
    """
    resolved = target.resolve()
    if (resolved / "run.json").exists():
        raise RunError(f"{option} {target} is the folder of a run: name another, or a file in it")
    for folder in resolved.parents:
        inner = resolved.relative_to(folder).parts[0]
        if inner in FILES_OF_A_RUN and (folder / "run.json").exists():
            raise RunError(f"{option} {target} would replace what the run {folder} needs: name another file")
