"""Count the floating-point operations of whole training iterations call by call, double backward passes included."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import conv_flop_count, flop_registry

from pggan_kit.benchmarking.rig import Rig
from pggan_kit.benchmarking.timing import Kinds
from pggan_kit.runs.state import TrainState
from pggan_kit.schedule import Stage

WITHOUT_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
    "promote_types",
}
"""Names of operations that are no views, and make none of a device's kernels run."""

QUESTIONS = ("prim", "profiler")
"""Namespaces of operations that ask for a tensor's device, or mark a span for the profiler."""


@dataclass(frozen=True)
class Like:
    """A tensor's shape, strides and type, without its content."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def make_tensor(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return a tensor of this shape and these strides, but of another type, with random numbers."""
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        elements = max(0, 1 + last)
        return torch.randn(elements, device=device).to(dtype).as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class Call:
    """A convolution or matrix product.

    Attributes:
        operation: The operation, as torch dispatches it.
        arguments: Its arguments, with a `Like` for each tensor.
        flops: Floating-point operations of one call.
        dtype: The type of its first tensor.
    """

    operation: Any
    arguments: tuple[Any, ...]
    flops: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Counts:
    """What iterations do.

    Attributes:
        calls: How often each convolution and matrix product takes place.
        operators: Number of operations that compute or copy something: about as many as a GPU is given kernels.
        other_bytes: Bytes that operations other than those in `calls` read and write.
    """

    calls: dict[Call, float]
    operators: float
    other_bytes: float


class Operations(TorchDispatchMode):
    """A mode that gathers all convolutions and matrix products that run inside it, backward passes too.

    Unlike torch's `FlopCounterMode` it looks at no modules, whose hooks a second backward pass does not survive.

    Attributes:
        calls: How often each took place.
        operators: See `Counts`.
        other_bytes: See `Counts`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: Counter[Call] = Counter()
        self.operators = 0
        self.other_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if computes_something(func):
            self.operators += 1
        count_flops = flop_registry.get(func._overloadpacket)
        if count_flops is None:
            if computes_something(func):
                self.other_bytes += count_bytes(args, kwargs, out)
        else:
            first = next(arg for arg in args if isinstance(arg, Tensor))
            arguments = _make_hashable(tree_map(_replace_tensor, args))
            if func._overloadpacket is torch.ops.aten.convolution_backward:
                flops = count_convolution_backward(*args)
            else:
                flops = count_flops(*args, **kwargs, out_val=out)
            self.calls[Call(func, arguments, flops, first.dtype)] += 1
        return out


def count_convolution_backward(gradient: Tensor, x: Tensor, weight: Tensor, *options: Any) -> int:
    """Return the floating-point operations of a convolution's backward pass: as many as forward for each gradient.

    torch's own formula takes the weights of grouped convolutions for those of all pairs of maps.

    Args:
        gradient: Gradient of the output (N, outputs, h', w').
        x: Input (N, inputs, h, w).
        weight: Weights (outputs, inputs / groups, k, k); inputs come first where the convolution is transposed.
        options: The other arguments of `aten.convolution_backward`.
    """
    _, _, _, _, transposed, _, _, (wants_x, wants_weight, _) = options
    once = conv_flop_count(list(x.shape), list(weight.shape), list(gradient.shape), transposed)
    return once * (int(wants_x) + int(wants_weight))


def computes_something(func: Any) -> bool:
    """Return whether an operation computes or copies, which takes a kernel: views and new memory take none."""
    if func.namespace in QUESTIONS or func._overloadpacket.__name__ in WITHOUT_KERNEL:
        return False
    aliases = [returned.alias_info for returned in func._schema.returns]
    return not any(alias is not None and not alias.is_write for alias in aliases)


def count_bytes(*values: Any) -> int:
    """Return the bytes that an operation reads and writes, where it touches each of its tensors once.

    Args:
        values: Arguments and results, with tensors anywhere in them. One that is changed in place counts twice.
    """
    total = 0
    for tensor in tree_leaves(values):
        if isinstance(tensor, Tensor):
            # An expanded tensor has fewer elements in memory than it shows.
            elements = math.prod(
                size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride or size == 0
            )
            total += elements * tensor.element_size()
    return total


def count_kinds(kinds: Kinds) -> Counts:
    """Return what iterations do, from a run of each of their kinds, as means over these.

    Args:
        kinds: The kinds of iteration, which run operation by operation: what is compiled or replayed cannot be seen.
    """
    counted = []
    for share, work in kinds:
        with Operations() as operations:
            work()
        counted.append((share, operations))
    return average_counts(counted)


def average_counts(counted: Iterable[tuple[float, Operations]]) -> Counts:
    """Return means over kinds of iteration.

    Args:
        counted: The share of all iterations that each kind has, and what one of the kind did.
    """
    calls: dict[Call, float] = defaultdict(float)
    operators = 0.0
    other_bytes = 0.0
    for share, operations in counted:
        for call, times in operations.calls.items():
            calls[call] += share * times
        operators += share * operations.operators
        other_bytes += share * operations.other_bytes
    return Counts(dict(calls), operators, other_bytes)


def count_mean_calls(make_rig: Callable[[], Rig]) -> Counts:
    """Return what an iteration does, as means over the period of lazy penalties.

    The iterations run on fake tensors, which have shapes and no content, and so cost next to nothing; that makes the
    rig useless afterwards. Components that need the content are run on real tensors.

    Args:
        make_rig: A function that returns a new rig.
    """
    try:
        return _count_mean_calls(make_rig(), FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:
        # A component may do anything that fake tensors cannot. If it is itself at fault, it raises again.
        return _count_mean_calls(make_rig(), contextlib.nullcontext())


def count_forward_calls(state: TrainState, stage: Stage) -> dict[Call, float]:
    """Return the operations of one image's way through all networks, on fake tensors where these suffice.

    Beside an encoder, D's head is left out: what it is given besides images is up to the update.
    """
    rows = 4  # statistics over a batch need a few
    labels = None
    if stage.classes:
        labels = torch.zeros(rows, dtype=torch.int64, device=state.device)
    latents = torch.zeros(rows, state.generator.latent_size, device=state.device)

    def run_forward(mode: contextlib.AbstractContextManager[object]) -> dict[Call, float]:
        with torch.no_grad(), mode, Operations() as operations:
            images = state.generator(latents, labels)
            if state.encoder is None:
                state.discriminator(images, labels)
            else:
                state.discriminator.read_features(images, None)
                state.encoder(images)
        return {call: count / rows for call, count in operations.calls.items()}

    try:
        return run_forward(FakeTensorMode(allow_non_fake_inputs=True))
    except Exception:
        # See `count_mean_calls`.
        return run_forward(contextlib.nullcontext())


def sum_flops(calls: Mapping[Call, float]) -> float:
    """Return all floating-point operations: two for each multiplication with its addition."""
    return sum(call.flops * times for call, times in calls.items())


def _count_mean_calls(rig: Rig, mode: contextlib.AbstractContextManager[object]) -> Counts:
    with rig.restore_components():
        # The rig knows its kinds of iteration after the first one.
        first = _count_calls(rig, mode, 0)
        counted = []
        for share, update in rig.list_kinds():
            counted.append((share, _count_calls(rig, mode, update) if update else first))
    return average_counts(counted)


def _count_calls(rig: Rig, mode: contextlib.AbstractContextManager[object], update: int) -> Operations:
    with mode, Operations() as operations:
        rig.step(update, eager=True)
    counted: Operations = operations
    return counted


def _replace_tensor(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Like(tuple(value.shape), value.stride(), value.dtype)
    return value


def _make_hashable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(_make_hashable(item) for item in value)
    return value
