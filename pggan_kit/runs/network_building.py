"""Build the networks of an experiment at the base stage, and place them on a device."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch

from pggan_kit.experiment import Experiment
from pggan_kit.growth.fade import ENCODER
from pggan_kit.growth.networks import Discriminator, Encoder, Generator, GrowingNetwork
from pggan_kit.schedule import Stage

N = TypeVar("N", bound=GrowingNetwork)


class HasMemoryFormat(Protocol):
    """Settings with the layout of features in memory."""

    memory_format: str


def build_generator(experiment: Experiment, base: Stage) -> Generator:
    """Build a generator at the base stage."""
    return Generator(
        experiment.find_architecture("generator"),
        experiment.resampling,
        experiment.image_resampling,
        _find_seed(experiment),
        experiment.latent_size,
        base,
    )


def build_discriminator(experiment: Experiment, base: Stage) -> Discriminator:
    """Build a discriminator at the base stage."""
    return Discriminator(
        experiment.find_architecture("discriminator"),
        experiment.resampling,
        experiment.image_resampling,
        _find_seed(experiment),
        base,
    )


def build_encoder(experiment: Experiment, base: Stage) -> Encoder:
    """Build an encoder at the base stage."""
    return Encoder(
        experiment.find_architecture(ENCODER),
        experiment.resampling,
        experiment.image_resampling,
        _find_seed(experiment),
        experiment.latent_size,
        base,
    )


def _find_seed(experiment: Experiment) -> int:
    """Return the seed of the networks' initial weights."""
    if experiment.network_seed is None:
        return experiment.seed
    return experiment.network_seed


def place_network(net: N, settings: HasMemoryFormat, device: torch.device) -> N:
    """Move a network to a device, and convert its convolutions' weights to the memory format of features."""
    net.to(device)
    if settings.memory_format == "channels_last":
        net.channels_last = True
        for param in net.parameters():
            if param.dim() == 4:
                param.data = param.data.contiguous(memory_format=torch.channels_last)
    return net
