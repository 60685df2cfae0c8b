"""What frozen pieces save: time of an iteration, and memory of gradients and moments, beside one where all learns."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

from pggan_kit.api.prepare import prepare
from pggan_kit.benchmarking.rig import Rig

HERE = Path(__file__).parent
SIZES = ["schedule.sizes = (4, 8, 16, 32)"]
FREEZE = ["train.growth = @growth.FreezeOld()"]
BOTH = [*FREEZE, "growth.FreezeOld.nets = ['generator', 'discriminator']"]
VARIANTS = {"everything learns": [], "G's old blocks frozen": FREEZE, "both networks' frozen": BOTH}
ROUNDS = 7


def count_numbers(rig: Rig) -> int:
    """Return how many numbers gradients and optimizers hold."""
    state = rig.state
    held = 0
    for net in (state.generator, state.discriminator):
        held += sum(param.grad.numel() for param in net.parameters() if param.grad is not None)
    for optimizer in state.optimizers.values():
        for kept in optimizer.state.values():
            held += sum(value.numel() for value in kept.values() if isinstance(value, torch.Tensor))
    return held


def test_frozen_pieces_cost_no_backward_pass_and_no_moments() -> None:
    """Print ratios to an iteration in which everything learns, measured in turn, at the last of four stages."""
    rigs = {}
    for name, lines in VARIANTS.items():
        prepared = prepare(HERE / "ladder.gin", [*SIZES, *lines], [str(HERE / "noise.py")])
        rigs[name] = Rig(prepared, prepared.schedule(), 3, fading=False, compiles=False)
        rigs[name].step()

    # Each round takes an iteration of each, one after the other, and begins with another one.
    seconds: dict[str, list[float]] = {name: [] for name in rigs}
    for number in range(ROUNDS):
        names = list(rigs)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            rigs[name].step()
            seconds[name].append(time.perf_counter() - began)

    print()
    ratios = {}
    numbers = {name: count_numbers(rig) for name, rig in rigs.items()}
    first = next(iter(rigs))
    for name in rigs:
        pairs = zip(seconds[name], seconds[first], strict=True)
        ratios[name] = statistics.median(own / whole for own, whole in pairs)
        memory = numbers[name] / numbers[first]
        print(f"{name}: {ratios[name]:.2f} of the time, {memory:.2f} of the gradients and moments")
    assert ratios["both networks' frozen"] < ratios["G's old blocks frozen"] < 1.0
    assert numbers["both networks' frozen"] < numbers["G's old blocks frozen"] < numbers[first]
