"""What a run's generator draws: now, at its last checkpoint, or as it was when a stage ended."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pggan_kit.errors import RunError
from pggan_kit.growth.fade import Fade
from pggan_kit.runs.checkpoints import Checkpoints, Entry, Say
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.runs.state import TrainState
from pggan_kit.system.seeding import fork_random_numbers

if TYPE_CHECKING:
    from pggan_kit.experiment import Experiment
    from pggan_kit.growth.networks import Generator
    from pggan_kit.plugin_host.hooks import Hooks
    from pggan_kit.schedule import Schedule

CHUNK = 256
"""Images that are drawn at once."""


class TrainedGenerator(nn.Module):
    """A run's averaged generator, in inference mode.

    Attributes:
        latent_size: Z.
        classes: number of classes it is conditioned on; 0 for none.
        images: the clock at which it is what it is.
        alpha: the new path's share where it stands within a fade (0-dim, in [0, 1]; may be filled with another), None
            where it has no old path.
    """

    alpha: Tensor | None

    def __init__(self, generator: Generator, alpha: float, classes: int, images: int) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size = generator.latent_size
        self.classes = classes
        self.images = images
        self.register_buffer("alpha", None if generator.bridge is None else torch.tensor(alpha))
        self.eval().requires_grad_(False)

    def forward(self, latents: Tensor, labels: Tensor | None = None, alpha: Tensor | None = None) -> Tensor:
        """Return images (N, C, h, w), nominally in [-1, 1].

        Args:
            latents: (N, Z) ~ N(0, 1).
            labels: (N,) int64, where the generator is conditional.
            alpha: 0-dim, instead of the generator's own where it stands within a fade.
        """
        images: Tensor = self.generator(latents, labels, self.alpha if alpha is None else alpha)
        return images


def trained(state: TrainState, hooks: Hooks) -> TrainedGenerator:
    """A copy, on the CPU, of a state's averaged generator, with the alpha of its place on the clock."""
    alpha = 1.0
    if state.generator.bridge is not None:
        fade = Fade(hooks, state.experiment.fade_reals)
        alpha = fade.alpha_at(state.stage, state.starts[-1], state.images, "generator")
    classes = state.stage.classes if state.experiment.architecture.conditional else 0
    return TrainedGenerator(copy.deepcopy(state.ema).cpu(), alpha, classes, state.images)


def restored(
    experiment: Experiment, schedule: Schedule, hooks: Hooks, saved: Snapshot, grown: bool = False
) -> TrainedGenerator:
    """The averaged generator of a checkpoint, on the CPU.

    Args:
        experiment, schedule, hooks: the run's, or those of a branch that goes on from it.
        saved: of a stage's end where `grown` is asked for.
        grown: as it was right after the stage's end, when the next stage had begun and nothing was trained yet.

    Raises:
        RunError: the checkpoint does not fit the experiment.
    """
    with fork_random_numbers():  # networks are initialised under seeds of their own
        state = TrainState(experiment, schedule, torch.device("cpu"))
        state.load_snapshot(saved, other_optimizers=True)
        if grown:
            stage = schedule.stages[len(state.starts)]
            old_paths = Fade(hooks, experiment.fade_reals).old_paths(stage, state.images)
            state.grow(dict.fromkeys(old_paths, True))
    return trained(state, hooks)


@torch.no_grad()
def drawn(
    net: nn.Module, latents: Tensor, labels: Tensor | None, alpha: Tensor | None, seed: int, device: torch.device
) -> Tensor:
    """Images (N, C, h, w), float32 on the CPU: those of `net(latents, labels, alpha)`, a chunk at a time.

    The net is used in inference mode. Noise that it draws comes from `seed`, and what else draws random numbers does
    not notice.

    Args:
        net: on `device`.
        latents, labels: (N, Z) and (N,) or None, on any device.
        alpha: 0-dim on `device`, or None.
    """
    was_training = net.training
    net.eval()
    with fork_random_numbers(device, seed):
        chunks = [
            net(
                part.to(device),
                None if labels is None else labels[start : start + len(part)].to(device),
                *(() if alpha is None else (alpha,)),
            )
            .float()
            .cpu()
            for start, part in zip(range(0, len(latents), CHUNK), latents.split(CHUNK), strict=True)
        ]
    net.train(was_training)
    return torch.cat(chunks)


def stage_end(checkpoints: Checkpoints, stage: str | int, say: Say = warnings.warn) -> tuple[Entry, Snapshot]:
    """The checkpoint that was kept as a stage ended: its row in `entries()`, and its content.

    Args:
        checkpoints: of a run.
        stage: its number from 0, or its size, as `28x28`.
        say: told in one sentence where the list of checkpoints is damaged.

    Raises:
        RunError: no such stage has ended; the message lists those that have.
    """
    ends: list[str] = []
    for entry in checkpoints.entries(say):
        if not entry.forever:
            continue
        saved = checkpoints.load(entry)
        if saved.stage_over:
            if str(stage) in (str(saved.stage), saved.size):
                return entry, saved
            ends.append(f"{saved.stage} ({saved.size})")
    raise RunError(f"no such stage has ended there; ended are: {', '.join(ends) or 'none'}")
