"""Helpers of the suites: messages about what is broken, stages, comparisons, and a watch for waits on the device."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pggan_kit.errors import first_line
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins
from pggan_kit.schedule import ScheduleSettings, Stage

WAITING = frozenset(
    {
        *("item", "tolist", "numpy", "cpu", "equal", "allclose", "is_nonzero"),
        *("__float__", "__int__", "__bool__", "__index__", "__array__", "__repr__", "__format__"),
        *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "histc"),
        # The same, as operators.
        *("_local_scalar_dense", "_unique", "_unique2", "unique_dim", "unique_dim_consecutive"),
    }
)
"""Calls on a tensor that make a GPU finish all its work first, whatever their arguments are."""

MASKS = (torch.bool, torch.uint8)
"""Types of an index that chooses elements: the size of the result is known when the work is done."""


def require(condition: bool, message: str) -> None:
    """Fail with a message that says what is broken; unlike `assert`, also under `python -O`.

    Raises:
        AssertionError: The condition does not hold.
    """
    if not condition:
        raise AssertionError(message)


def make_stages(
    sizes: Sequence[int | Sequence[int]] = (4, 8),
    image_channels: int = 1,
    classes: int = 0,
    batch_size: int = 4,
    fade_images: int = 12,
    stable_images: int = 8,
) -> tuple[Stage, ...]:
    """Return the stages of a short schedule."""
    settings = ScheduleSettings(sizes, fade_images, stable_images, batch_size)
    return settings.resolve(16, image_channels, classes).stages


def load_hooks(plugin: object) -> Hooks:
    """Load a plugin as a run does, and return its hooks: `load_hooks(mine).call("before_run", run=run)`.

    Args:
        plugin: A module, or an object with hooks.

    Raises:
        PluginError: The plugin misspells a hook, takes arguments that the hook does not have, or implements none.
    """
    plugins = Plugins()
    plugins.add(Plugin(getattr(plugin, "__name__", type(plugin).__name__), "this test", plugin))
    return Hooks(plugins, {})


def draw_noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw from N(0, 1): the same for the same seed, whatever else was drawn."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def make_labels(classes: int, count: int) -> Tensor | None:
    """Return labels 0, 1, ... of shape (count,), or None without classes."""
    return torch.arange(count) % classes if classes else None


def measure_difference(value: Tensor, wanted: Tensor) -> float:
    """Return the largest difference, relative to the largest wanted value (at least 1); NaN where anything is NaN."""
    value = value.detach().double()
    wanted = wanted.detach().double()
    return float((value - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))


def measure_influence(function: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    """Return how much the first sample's output changes as all other samples of its batch do, as `measure_difference`.

    Args:
        function: Function of a batch (N, ...) whose output has a row for each sample; torch's generator is seeded
            before each of its two calls.
        batch: The batch, of at least two samples.
    """
    others = torch.cat([batch[:1], 3 * draw_noise(*batch.shape, seed=1, dtype=batch.dtype)[1:]])
    rows = []
    for given in (batch, others):
        torch.manual_seed(0)
        rows.append(function(given)[:1])
    return measure_difference(*rows)


def require_sample_by_sample(
    function: Callable[[Tensor], Tensor], batch: Tensor, name: str, tolerance: float = 1e-5
) -> None:
    """Fail where a sample's output depends on the other samples of its batch.

    Args:
        function, batch: See `measure_influence`.
        name: What the function makes, for the message.
        tolerance: Tolerance of the change, relative to the largest value.
    """
    change = measure_influence(function, batch)
    require(
        change <= tolerance,
        f"{name} of a sample depends on the others of its batch, by {change:.2g}: it must depend on that sample alone, "
        "since ranks and micro-batches split batches",
    )


def perturb(net: nn.Module, seed: int = 0, size: float = 0.1) -> None:
    """Move every parameter a little: parameters that start at 0 would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn(param.shape, generator=generator, dtype=param.dtype), alpha=size)


def require_gradients(net: nn.Module, name: str) -> None:
    """Fail where a parameter that learns got no gradient, or one that is 0 throughout or not finite.

    Args:
        net: The network or module, after a backward pass.
        name: Its name for the message.
    """
    for key, param in net.named_parameters():
        if not param.requires_grad:
            continue
        require(param.grad is not None, f"no gradient flows to {name}'s parameter {key}: the output ignores it")
        assert param.grad is not None
        require(bool(param.grad.isfinite().all()), f"the gradient of {name}'s parameter {key} is not finite")
        require(bool(param.grad.abs().max() > 0), f"the gradient of {name}'s parameter {key} is 0 throughout")


def are_equal(a: Any, b: Any) -> bool:
    """Return whether two trees of tensors, numbers, strings, dicts, lists and tuples are equal bit for bit."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(are_equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(are_equal, a, b))
    return bool(a == b)


def save_and_load(saved: Any, name: str) -> Any:
    """Return a state as it comes back from a checkpoint.

    Args:
        saved: The state.
        name: Name of its owner for the message.

    Raises:
        AssertionError: The state holds something that files of data may not hold.
    """
    # With `weights_only`, torch refuses objects that could run code.
    buffer = io.BytesIO()
    try:
        torch.save(saved, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{name} saves what torch.load(weights_only=True) does not give back; save tensors, numbers, strings, and "
            f"lists, tuples and dicts of those ({first_line(error)})"
        ) from error


def copy_weights(net: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's state."""
    return {name: value.clone() for name, value in net.state_dict().items()}


def check_gradients(function: Callable[..., Any], inputs: Sequence[Tensor], name: str, second: bool = True) -> None:
    """Compare gradients with finite differences in float64.

    Args:
        function: The function.
        inputs: Its float64 inputs.
        name: Its name, with which the message begins.
        second: Whether gradients of second order are compared too.

    Raises:
        AssertionError: The gradients differ.
    """
    try:
        torch.autograd.gradcheck(function, tuple(inputs))
    except Exception as error:
        raise AssertionError(f"{name}: its gradient is not its derivative. {summarize_error(error)}") from error
    if not second:
        return

    # Penalties on gradients are differentiated a second time.
    try:
        torch.autograd.gradgradcheck(function, tuple(inputs))
    except Exception as error:
        raise AssertionError(
            f"{name}: the derivative of its gradient is wrong, or it cannot be differentiated twice. "
            f"{summarize_error(error)}"
        ) from error


def summarize_error(error: BaseException, count: int = 3) -> str:
    """Return an error's type and the first lines of its message as one line."""
    lines = str(error).split("\n")[:count]
    return f"{type(error).__name__}: " + " ".join(lines).strip()


def waits_for_device(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    """Return whether a call on a tensor makes a GPU finish all its work first, also to know the size of its result.

    Args:
        name: Name of a method or function of torch, or of an operator without `aten::`.
        arguments, keywords: Its arguments.
    """
    if name in ("__getitem__", "index"):
        return _holds_mask(arguments[1])
    if name in ("__setitem__", "index_put", "index_put_", "_index_put_impl_"):
        # A single value is filled in where the mask is true, without a list of the places.
        value = arguments[2]
        return _holds_mask(arguments[1]) and isinstance(value, Tensor) and value.numel() > 1
    if name == "repeat_interleave":
        # As an operator it has the repeats alone, and counts unless it knows the size.
        repeats = keywords.get("repeats", arguments[1] if len(arguments) > 1 else arguments[0])
        return isinstance(repeats, Tensor) and keywords.get("output_size") is None
    if name == "where":
        return len(arguments) + len(keywords) == 1
    return name in WAITING


def _holds_mask(index: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.dtype in MASKS for leaf in tree_leaves(index))


class SyncWatch(TorchFunctionMode):
    """A context that notes each call that would make a GPU's queue run empty.

    Such calls are `.item()`, `.cpu()`, `float(tensor)`, `if tensor`, printing a tensor, and those whose result has a
    size that depends on values, such as `tensor[mask]`. The watch works on any device, and for any tensor.

    Attributes:
        found: Names of the calls so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call if it waits, and make it."""
        name = getattr(func, "__name__", "")
        given = kwargs or {}

        # A copy that does not block does not wait, and on a CPU `to` looks like such a copy's no-op.
        moves = False
        if name == "to" and not given.get("non_blocking"):
            moves = "cpu" in map(str, (*args[1:], *given.values()))
        if moves or waits_for_device(name, args, given):
            self.found.append(name)
        return func(*args, **given)
