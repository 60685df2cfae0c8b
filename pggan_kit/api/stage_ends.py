"""Restore the generators of a run as its stages ended, those of the runs that it began from among them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pggan_kit.api.prepare import Prepared, prepare_run
from pggan_kit.components import StageEnd
from pggan_kit.evaluation.evaluator import round_fakes
from pggan_kit.layers.value_maps import BYTES, ValueMap
from pggan_kit.runs.branches import list_lineage
from pggan_kit.runs.checkpoints import Say
from pggan_kit.runs.directory import RunDirectory
from pggan_kit.runs.generators import TrainedGenerator, draw_images, restore_generator


def restore_stage_ends(
    prepared: Prepared,
    files: RunDirectory,
    until: int,
    device: torch.device,
    plugins: Sequence[Any] = (),
    parts: Mapping[str, object] | None = None,
    say: Say = warnings.warn,
) -> list[StageEnd]:
    """Return the ends of a run's stages that had images, oldest first.

    Args:
        prepared: The run's experiment.
        files: The run's directory.
        until: Clock after which stage ends are left out.
        device: Device on which the generators draw.
        plugins: Plugins for the runs that it began from, instead of the plugin files that those used.
        parts: New objects for those that these runs were begun with; None where there were none.
        say: Receiver of one sentence for each checkpoint that is damaged, or run that is not there any more or whose
            images are in other units.

    Raises:
        RunError: A checkpoint does not fit its run's config.
    """
    ends: dict[int, StageEnd] = {}
    for ancestor, limit in list_lineage(files, say):
        # Each checkpoint is restored by the run that wrote it. A stage without images has none.
        own = prepared
        if ancestor is not files:
            own, _ = prepare_run(ancestor.path, plugins, parts, needs_data=False)
            # Images in [-1, 1] are compared, where each stands for the units of its own run.
            if own.values != prepared.values:
                say(
                    f"{ancestor.path}: its images are in other units ({own.values}, and here {prepared.values}), and "
                    "its stages are left out"
                )
                continue
        schedule = own.resolve_schedule()
        identity = own.identify_networks(schedule)
        for saved in ancestor.checkpoints(say=say).load_kept():
            if saved.images > min(limit, until) or not saved.stage_over:
                continue
            generator = restore_generator(own.built.experiment, schedule, own.hooks(), saved, identity)
            ends[saved.stage] = StageEnd(
                stage=schedule.stages[saved.stage],
                images=saved.images,
                latent_size=generator.latent_size,
                classes=generator.classes,
                generate=_make_generate(generator.to(device), own.built.experiment.seed, device, own.values or BYTES),
            )
    return [ends[index] for index in sorted(ends)]


def _make_generate(
    generator: TrainedGenerator, seed: int, device: torch.device, values: ValueMap
) -> Callable[[Tensor, Tensor | None], Tensor]:
    def generate(latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return round_fakes(draw_images(generator, latents, labels, None, seed, device), values)

    return generate
