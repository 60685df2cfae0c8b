"""Bring a run's folder back to an earlier checkpoint, from which it is then resumed."""

from __future__ import annotations

import json
from pathlib import Path

from pggan_kit.runs.checkpoints import MANIFEST, Checkpoints


def remove_checkpoints_after(folder: Path, images: int) -> None:
    """Remove the checkpoints of a run that were saved after a clock, at which one must have been saved.

    Their files go, too: a whole checkpoint that the manifest does not list is found, and the run goes on from it.
    """
    checkpoints = folder / "checkpoints"
    manifest = checkpoints / MANIFEST
    kept = []
    for row in json.loads(manifest.read_text()):
        if row["images"] <= images:
            kept.append(row)
        else:
            (checkpoints / row["file"]).unlink()
    manifest.write_text(json.dumps(kept))
    assert Checkpoints(checkpoints).load_last().images == images
