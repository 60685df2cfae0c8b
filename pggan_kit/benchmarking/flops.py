"""Floating-point operations of whole training iterations, counted call by call, double backward passes included."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry

from pggan_kit.benchmarking.rig import Rig
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Stage


@dataclass(frozen=True)
class Like:
    """A tensor's looks."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def tensor(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """One of these looks, but of this dtype, with random numbers."""
        reach = 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        return torch.randn(max(0, reach), device=device).to(dtype).as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class Call:
    """A convolution or matrix product: the operation, and its arguments with tensors as `Like`."""

    operation: Any
    arguments: tuple[Any, ...]
    flops: int
    dtype: torch.dtype


class Operations(TorchDispatchMode):
    """Gathers all convolutions and matrix products that run inside it, backward passes too.

    Unlike torch's `FlopCounterMode` it looks at no modules, whose hooks a second backward pass does not survive.

    Attributes:
        calls: how often each took place.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Call] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and note it."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            first = next(arg for arg in args if isinstance(arg, Tensor))
            looks = _hashable(tree_map(_look, args))
            self.calls[Call(func, looks, formula(*args, **(kwargs or {}), out_val=out), first.dtype)] += 1
        return out


def mean_calls(new_rig: Callable[[], Rig]) -> dict[Call, float]:
    """The operations of an iteration, as means over lazy penalties' period.

    It runs on fake tensors, which have shapes and no content, and so costs next to nothing; it spoils the rig. Parts
    that need the content are run in earnest.
    """
    try:
        return _mean_calls(new_rig(), FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:  # what anyone's part does that fake tensors cannot; a part that is at fault raises again
        return _mean_calls(new_rig(), contextlib.nullcontext())


def forward_calls(state: TrainState, stage: Stage) -> dict[Call, float]:
    """The operations of one image's way through both networks, on fake tensors where they will do."""
    rows = 4  # statistics over a batch need a few
    labels = torch.zeros(rows, dtype=torch.int64, device=state.device) if stage.classes else None
    latents = torch.zeros(rows, state.generator.latent_size, device=state.device)

    def forward(mode: contextlib.AbstractContextManager[object]) -> dict[Call, float]:
        with torch.no_grad(), mode, Operations() as operations:
            state.discriminator(state.generator(latents, labels), labels)
        return {call: count / rows for call, count in operations.calls.items()}

    try:
        return forward(FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:  # see `mean_calls`
        return forward(contextlib.nullcontext())


def flops_of(calls: Mapping[Call, float]) -> float:
    """In all: two for each multiplication with its addition."""
    return sum(call.flops * times for call, times in calls.items())


def _mean_calls(rig: Rig, mode: contextlib.AbstractContextManager[object]) -> dict[Call, float]:
    first = _calls(rig, mode, 0)
    total: dict[Call, float] = defaultdict(float)
    for share, update in rig.kinds():
        for call, times in (_calls(rig, mode, update) if update else first).items():
            total[call] += share * times
    return dict(total)


def _calls(rig: Rig, mode: contextlib.AbstractContextManager[object], update: int) -> Counter[Call]:
    with mode, Operations() as operations:
        rig.step(update)
    calls: Counter[Call] = operations.calls
    return calls


def _look(value: Any) -> Any:
    return Like(tuple(value.shape), value.stride(), value.dtype) if isinstance(value, Tensor) else value


def _hashable(value: Any) -> Any:
    return tuple(_hashable(item) for item in value) if isinstance(value, (list, tuple)) else value
