"""Check where commands write: what makes a folder a run or an ablation is never replaced by what is drawn from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pggan_kit.errors import RunError
from pggan_kit.system.locks import LOCK

FILES_OF_A_RUN = ("averages", "checkpoints", "config.gin", "log.txt", "operative.gin", "run.json", "stats.jsonl", LOCK)
"""What a run needs, in its folder; drawings beside these are replaced freely."""

FILES_OF_AN_ABLATION = (
    "analyses",
    "analysis.json",
    "configs",
    "data.json",
    "locks",
    "logs",
    "plan.json",
    "results.csv",
    "table.txt",
    "tuning",
    LOCK,
)
"""What an ablation needs, in its folder, beside its trials, which are runs."""

FILES_OF_A_SWEEP = (
    "base.gin",
    "best.gin",
    "best.json",
    "config.gin",
    "data.json",
    "locks",
    "logs",
    "study.journal",
    "sweep.json",
    "trials.csv",
)
"""What a sweep needs, in its folder, beside its trials, which are runs."""


class Kind(NamedTuple):
    """A kind of folder.

    Attributes:
        noun: What such a folder is.
        mark: The file by which it is known.
        files: What it needs, beside its runs.
        runs: The folders of its runs.
        first: What its first start writes before the mark.
    """

    noun: str
    mark: str
    files: tuple[str, ...]
    runs: tuple[str, ...] = ()
    first: tuple[str, ...] = ()


ABLATION = Kind("ablation", "plan.json", FILES_OF_AN_ABLATION, ("runs", "trunks"), ("configs",))

SWEEP = Kind("sweep", "sweep.json", FILES_OF_A_SWEEP, ("runs",), ("base.gin", "config.gin"))

MARKED = (Kind("run", "run.json", FILES_OF_A_RUN), ABLATION, SWEEP)

SHARED = {LOCK, "locks", "logs"}
"""What replaces nothing in a folder that has it already."""


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
        for kind in MARKED:
            if inner in kind.files and (folder / kind.mark).exists():
                raise RunError(
                    f"{option} {target} would replace what the {kind.noun} {folder} needs: name another file"
                )


def require_unused_folder(option: str, target: Path, kind: Kind) -> None:
    """Check that a folder in which an ablation or a sweep begins holds nothing that it would replace, or take for its
    own.

    A folder with its mark has been begun, and one that is not there yet is unused.

    Args:
        option: The option that names the folder, for the message.
        target: The folder.
        kind: What begins there.

    Raises:
        RunError: It holds such files, or cannot be read.
    """
    try:
        names = {entry.name for entry in target.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunError(f"{option} {target}: {error.strerror}") from error
    if kind.mark in names:
        return

    # A first start takes its locks before it writes anything else; it may have been killed before it wrote the mark.
    taken = {*kind.files, *kind.runs, *(other.mark for other in MARKED)} - SHARED
    if "locks" in names:
        taken -= set(kind.first)
    if taken & names:
        raise RunError(
            f"{option} {target} has no {kind.mark}, and holds {', '.join(sorted(taken & names))}, which a new "
            f"{kind.noun} would replace or take for its own: name a folder without them, or put its {kind.mark} back"
        )
