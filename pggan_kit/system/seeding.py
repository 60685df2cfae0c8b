"""Random numbers of a run: a purpose and a place on the clock give each seed, so that nothing has to be remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed for one purpose, e.g. `derive(0, "latents", "generator", 12_800)`.

    Equal arguments give equal seeds on every machine; any difference gives an unrelated one.
    """
    text = repr((seed, *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator seeded for one purpose. Numbers drawn on the CPU are equal for every device."""
    return torch.Generator().manual_seed(derive(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded for one purpose."""
    return np.random.Generator(np.random.PCG64(derive(seed, *names)))


def seed_torch(seed: int) -> None:
    """Seed torch's own generators, of the CPU and of every GPU.

    `torch.manual_seed` does the same, but records the stack for each kind of device that is missing, which takes as
    long as several layers of a small stage.
    """
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def seed_step(device: torch.device, seed: int) -> None:
    """Seed torch's own generators, of the CPU and of a GPU in use, for one step: the quick form of `seed_torch`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)


@contextmanager
def fork_random_numbers(device: torch.device | None = None, seed: int | None = None) -> Iterator[None]:
    """Let a block draw from torch's own generators, and restore their state at its end.

    Args:
        device: Device whose generator is restored beside the CPU's, if it is a GPU.
        seed: Seed of the block's random numbers. None to continue from the generators' present state.
    """
    devices = []
    if device is not None and device.type == "cuda":
        devices = [device]
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            seed_torch(seed)
        yield
