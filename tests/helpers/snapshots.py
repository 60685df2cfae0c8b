"""Snapshots for tests that need some content in a checkpoint and no run."""

from dataclasses import replace
from typing import Any

import torch

from pggan_kit.runs.snapshot import SavedMeans, Snapshot
from pggan_kit.schedule import STABLE


def snapshot_at(images: int, **changes: Any) -> Snapshot:
    """Return a small snapshot at a clock, whose weights depend on that clock."""
    weights = {"weight": torch.arange(4.0) + images}
    snapshot = Snapshot(
        images=images,
        steps=images,
        starts=(0,),
        discriminator_updates=images,
        generator_updates=images,
        last_tick=0,
        phase=STABLE,
        bridged={"generator": False, "discriminator": False},
        generator=weights,
        discriminator={},
        averages={"half_life": weights},
        optimizers={},
        optimizer_classes={},
        means=SavedMeans(),
        dropped=0,
        rewinds=0,
        warned_stage=-1,
    )
    return replace(snapshot, **changes)
