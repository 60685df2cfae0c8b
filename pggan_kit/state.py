"""TrainState: all that a checkpoint holds, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pggan_kit.errors import RunError
from pggan_kit.experiment import Experiment
from pggan_kit.networks import Discriminator, Generator
from pggan_kit.schedule import FADE, STABLE, Schedule, Stage, at_height

FORMAT = 1

N = TypeVar("N", bound=nn.Module)


class TickMeans:
    """Running means of 0-dim tensors, kept on their device and read once a tick."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in one step's values; a name that is missing in some steps is averaged over those that have it."""
        for name, value in values.items():
            if name in self.sums:
                self.sums[name] += value
                self.counts[name] += 1
            else:
                self.sums[name] = value.detach().to(torch.float32, copy=True)
                self.counts[name] = 1

    def read(self) -> dict[str, float]:
        """The means as plain numbers; starts anew. Waits for the device."""
        names = list(self.sums)
        values = torch.stack([self.sums[name] for name in names]).tolist() if names else []
        means = {name: value / self.counts[name] for name, value in zip(names, values, strict=True)}
        self.sums, self.counts = {}, {}
        return means


class TrainState:
    """Networks, their average, optimizers and the clock.

    Attributes:
        images: reals drawn so far, over all ranks: the one clock.
        steps: iterations so far.
        starts: the clock at which each stage so far began.
        last_tick: the clock at the last tick.
        phase: `fade` or `stable`: what the stage is in; it changes when the loop acts on it, not by the clock alone.
        generator, discriminator: the networks, at the size they have grown to.
        ema: the generator's exponential moving average; it grows along and lives through all stages.
        optimizers: by the names that the update gave them.
        means: what the running tick has gathered.
    """

    def __init__(self, experiment: Experiment, schedule: Schedule, device: torch.device) -> None:
        self.experiment = experiment
        self.schedule = schedule
        self.device = device
        self.images = 0
        self.steps = 0
        self.starts = [0]
        self.last_tick = 0
        self.phase = STABLE
        self.means = TickMeans()
        if any(True for _ in experiment.image_resampling.up(1, 2).parameters()):
            raise ValueError("train.image_resampling must have no parameters: it also resamples reals")
        base = schedule.stages[0]
        pair = (experiment.architecture, experiment.resampling, experiment.image_resampling, experiment.seed)
        self.generator = self._place(Generator(*pair, experiment.latent_size, base))
        self.ema = self._place(Generator(*pair, experiment.latent_size, base)).requires_grad_(False)
        self.discriminator = self._place(Discriminator(*pair, base))
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.renew_optimizers(reset=True)

    @property
    def stage(self) -> Stage:
        """The stage that the networks have grown to."""
        return self.schedule.stages[len(self.starts) - 1]

    @property
    def fading(self) -> bool:
        """Whether a network has its old path beside the new one."""
        return self.generator.bridge is not None or self.discriminator.bridge is not None

    def network(self, name: str) -> Generator | Discriminator:
        """`generator` or `discriminator`."""
        return self.generator if name == "generator" else self.discriminator

    def grow(self, bridged: Mapping[str, bool]) -> None:
        """Begin the next stage here: grow all networks, with bridges for those named in `bridged`."""
        self.starts.append(self.images)
        self.phase = FADE if self.stage.fade_images > 0 else STABLE
        self._grow_networks(bridged)

    def end_fade(self) -> None:
        """Drop the bridges."""
        for net in (self.generator, self.ema, self.discriminator):
            net.end_fade()

    def renew_optimizers(self, reset: bool) -> None:
        """Ask the update for optimizers that fit the networks; parameters that stayed keep their state unless `reset`."""
        old = self.optimizers
        self.optimizers = self.experiment.update.optimizers(
            self.experiment, self.stage, self.generator, self.discriminator
        )
        if reset:
            return
        for name, optimizer in self.optimizers.items():
            kept = old[name].state if name in old else {}
            for group in optimizer.param_groups:
                for param in group["params"]:
                    if param in kept:
                        optimizer.state[param] = kept[param]

    @torch.no_grad()
    def follow(self) -> None:
        """Let the average follow the generator by one step: `ema = decay * ema + (1 - decay) * generator`."""
        decay: float = at_height(self.experiment.ema_decay, self.stage.height)
        averages: list[Tensor] = list(self.ema.parameters())
        currents: list[Tensor] = list(self.generator.parameters())
        torch._foreach_lerp_(averages, currents, 1.0 - decay)
        for average, current in zip(self.ema.buffers(), self.generator.buffers(), strict=True):
            average.copy_(current)

    def state_dict(self) -> dict[str, Any]:
        """Everything, as data that `torch.load(weights_only=True)` reads back."""
        return {
            "format": FORMAT,
            "images": self.images,
            "steps": self.steps,
            "starts": list(self.starts),
            "last_tick": self.last_tick,
            "phase": self.phase,
            "bridged": {name: self.network(name).bridge is not None for name in ("generator", "discriminator")},
            "generator": self.generator.state_dict(),
            "ema": self.ema.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "means": {"sums": self.means.sums, "counts": self.means.counts},
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Become what was saved. Only on a new state of the same experiment.

        Raises:
            RunError: a checkpoint of another format, or of other networks.
        """
        if saved.get("format") != FORMAT:
            raise RunError(f"the checkpoint has format {saved.get('format')}; this version reads format {FORMAT}")
        last = len(saved["starts"]) - 1
        if last >= len(self.schedule.stages):
            raise RunError(f"the checkpoint stands in stage {last} of a schedule of {len(self.schedule.stages)} stages")
        for index in range(1, last + 1):
            self.starts = [0] * (index + 1)
            self._grow_networks(saved["bridged"] if index == last else {})
        self.starts = list(saved["starts"])
        self.images, self.steps = saved["images"], saved["steps"]
        self.last_tick, self.phase = saved["last_tick"], saved["phase"]
        for name in ("generator", "ema", "discriminator"):
            load_weights(getattr(self, name), saved[name], name)
        self.renew_optimizers(reset=True)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(saved["optimizers"][name])
        self.means.sums = {name: value.to(self.device) for name, value in saved["means"]["sums"].items()}
        self.means.counts = dict(saved["means"]["counts"])

    def _grow_networks(self, bridged: Mapping[str, bool]) -> None:
        pairs = ((self.generator, "generator"), (self.ema, "generator"), (self.discriminator, "discriminator"))
        for net, name in pairs:
            net.grow(self.stage, bridged.get(name, False))
            self._place(net)
        self.ema.requires_grad_(False)

    def _place(self, net: N) -> N:
        """On the device, with convolutions' weights in the memory format that features shall have."""
        net.to(self.device)
        if self.experiment.memory_format == "channels_last":
            for param in net.parameters():
                if param.dim() == 4:
                    param.data = param.data.contiguous(memory_format=torch.channels_last)
        return net


def load_weights(net: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a network's weights.

    Raises:
        RunError: they belong to another architecture; the message names the first piece that differs.
    """
    own = net.state_dict()
    for key in [*own, *saved]:
        have, got = (tuple(d[key].shape) if key in d else "nothing" for d in (own, saved))
        if have != got:
            raise RunError(
                f"the checkpoint's {name} is of another architecture: {key} is {got} there and {have} in this config"
            )
    net.load_state_dict(saved)
