"""What the suites share: saying what is broken, stages, comparing, and noticing who waits for the device."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pggan_kit.errors import first_line
from pggan_kit.plugin_host.hooks import Hooks
from pggan_kit.plugin_host.loading import Plugin, Plugins
from pggan_kit.schedule import ScheduleSettings, Stage

WAITING = frozenset(
    {
        *("item", "tolist", "numpy", "cpu", "equal", "allclose", "nonzero", "is_nonzero"),
        *("__float__", "__int__", "__bool__", "__index__", "__array__", "__repr__", "__format__"),
    }
)
"""Calls on a tensor that make a GPU finish all its work first."""


def require(condition: bool, message: str) -> None:
    """Fail with a message that says what is broken; unlike `assert`, also under `python -O`.

    Raises:
        AssertionError: the condition does not hold.
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
    """The stages of a short schedule."""
    settings = ScheduleSettings(sizes, fade_images, stable_images, batch_size)
    return settings.resolve(16, image_channels, classes).stages


def load_hooks(plugin: object) -> Hooks:
    """Load a plugin as a run does, and return its hooks: `load_hooks(mine).call("before_run", run=run)`.

    Args:
        plugin: a module, or an object with hooks.

    Raises:
        PluginError: it misspells a hook, takes arguments that the hook does not have, or implements none.
    """
    plugins = Plugins()
    plugins.add(Plugin(getattr(plugin, "__name__", type(plugin).__name__), "this test", plugin))
    return Hooks(plugins, {})


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """N(0, 1), the same for the same seed, whatever else was drawn."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def labels_for(classes: int, count: int) -> Tensor | None:
    """(count,) labels 0, 1, ..., or None without classes."""
    return torch.arange(count) % classes if classes else None


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, relative to the largest wanted value (at least 1); NaN where anything is NaN."""
    found, wanted = found.detach().double(), wanted.detach().double()
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))


def shake(net: nn.Module, seed: int = 0, size: float = 0.1) -> None:
    """Move every parameter a little: what starts at 0 would hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for param in net.parameters():
            param.add_(torch.randn(param.shape, generator=generator, dtype=param.dtype), alpha=size)


def require_gradients(net: nn.Module, what: str) -> None:
    """Fail where a parameter got no gradient, or one that is 0 throughout or not finite.

    Args:
        net: after a backward pass.
        what: names the network or part in the message.
    """
    for name, param in net.named_parameters():
        require(param.grad is not None, f"no gradient flows to {what}'s parameter {name}: the output ignores it")
        assert param.grad is not None
        require(bool(param.grad.isfinite().all()), f"the gradient of {what}'s parameter {name} is not finite")
        require(bool(param.grad.abs().max() > 0), f"the gradient of {what}'s parameter {name} is 0 throughout")


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of tensors, numbers, strings, dicts, lists and tuples are equal to the bit."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return isinstance(a, Tensor) and isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


def through_a_file(saved: Any, what: str) -> Any:
    """What a checkpoint gives back of it.

    Raises:
        AssertionError: it holds something that files of data may not hold.
    """
    buffer = io.BytesIO()
    try:
        torch.save(saved, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=True)
    except Exception as error:
        raise AssertionError(
            f"{what} saves what torch.load(weights_only=True) does not give back; save tensors, numbers, strings, and "
            f"lists, tuples and dicts of those ({first_line(error)})"
        ) from error


def weights(net: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's state."""
    return {name: value.clone() for name, value in net.state_dict().items()}


def checked(function: Callable[..., Any], inputs: Sequence[Tensor], what: str, second: bool = True) -> None:
    """Compare gradients with finite differences in float64, of first and (with `second`) of second order.

    Raises:
        AssertionError: they differ; the message begins with `what`.
    """
    try:
        torch.autograd.gradcheck(function, tuple(inputs))
    except Exception as error:
        raise AssertionError(f"{what}: its gradient is not its derivative. {first_lines(error)}") from error
    if not second:
        return
    try:
        torch.autograd.gradgradcheck(function, tuple(inputs))
    except Exception as error:
        raise AssertionError(
            f"{what}: the derivative of its gradient is wrong, or it cannot be differentiated twice. "
            f"{first_lines(error)}"
        ) from error


def first_lines(error: BaseException, count: int = 3) -> str:
    """The beginning of an error's message."""
    return f"{type(error).__name__}: " + " ".join(str(error).split("\n")[:count]).strip()


class SyncWatch(TorchFunctionMode):
    """While entered, notes each call that would make a GPU's queue run empty: `.item()`, `.cpu()`, `float(tensor)`,
    `if tensor`, printing a tensor. Works on any device, and for any tensor.

    Attributes:
        found: names of the calls so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Note the call where it waits, and go on."""
        name = getattr(func, "__name__", "")
        given = kwargs or {}
        # A copy that does not block does not wait, and on a CPU `to` cannot be told from such a copy's no-op.
        moved = name == "to" and not given.get("non_blocking") and "cpu" in map(str, (*args[1:], *given.values()))
        if name in WAITING or moved:
            self.found.append(name)
        return func(*args, **given)
