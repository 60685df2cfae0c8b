"""Find a loss or gradient that is NaN or infinite before it changes a weight.

On a CPU each optimizer step is checked before it is taken. A GPU must not be waited for: there, each check sets a flag
on the device, which the loop reads at ticks; if it is set, the loop returns to the last tick and takes the steps again,
each checked. `recovery.py` decides what happens then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MOST_NAMED = 3
"""Maximum number of parameters that a message names; the others are counted."""


class NonFiniteError(Exception):
    """A loss or gradient is NaN or infinite; only the loop catches it.

    Args:
        net: `generator`, `discriminator` or `encoder`; empty where only the flag of a whole tick is known.
        terms: Names of the loss's terms that are not finite.
        parameters: Names of the parameters whose gradient is not finite.
    """

    def __init__(self, net: str = "", terms: tuple[str, ...] = (), parameters: tuple[str, ...] = ()) -> None:
        super().__init__(net)
        self.net = net
        self.terms = terms
        self.parameters = parameters

    def __str__(self) -> str:
        culprits = []
        if self.terms:
            culprits.append(f"the {self.net}'s {', '.join(self.terms)}")
        if self.parameters:
            owner = "its" if self.terms else f"the {self.net}'s"
            culprits.append(f"the gradient of {owner} {self._list_parameters()}")
        return " and ".join(culprits)

    def _list_parameters(self) -> str:
        names = ", ".join(self.parameters[:MOST_NAMED])
        more = len(self.parameters) - MOST_NAMED
        return f"{names} and {more} more" if more > 0 else names


def checks_each_step(device: torch.device) -> bool:
    """Return whether reading a flag in every step costs next to nothing on a device."""
    return device.type == "cpu"


class Guard:
    """Check the terms and gradients of each minimisation before its optimizer steps.

    Args:
        device: The device of the networks.

    Attributes:
        each_step: Whether a check raises at once; else it only sets the flag.
    """

    def __init__(self, device: torch.device) -> None:
        self.each_step = checks_each_step(device)
        self._flag = torch.zeros((), dtype=torch.float32, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)

    def check(
        self,
        net: str,
        losses: Mapping[str, Tensor],
        total: Tensor,
        moving: nn.Module,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Check a minimisation after its backward pass.

        Args:
            net: Name of the network whose weights it changes.
            losses: The terms, by name, averaged over the processes.
            total: Their sum.
            moving: The network, with its gradients, averaged over the processes and no longer scaled.
            scaler: The scaler of the losses. While it still scales them up, gradients may overflow: it lowers its
                scale and leaves the step out.

        Raises:
            NonFiniteError: Something is not finite, and each step is checked. The same on all ranks.
        """
        gradients = [param.grad for param in moving.parameters() if param.grad is not None]
        scale = None
        if scaler is not None and scaler.is_enabled():
            scale = scaler._get_scale_async()

        # An overflow counts only where the scale is too small to be its cause.
        if scale is None:
            self._set_where_not_finite(self._flag, [total.detach(), *gradients])
        else:
            overflow = torch.zeros_like(self._flag)
            self._set_where_not_finite(overflow, gradients)
            self._set_where_not_finite(self._flag, [total.detach()])
            torch.maximum(self._flag, overflow * (scale < 1.0), out=self._flag)

        if self.each_step and self.read():
            terms = [name for name, value in losses.items() if not value.isfinite()]
            parameters = [
                name
                for name, param in moving.named_parameters()
                if param.grad is not None and not param.grad.isfinite().all()
            ]
            raise NonFiniteError(net, tuple(terms), tuple(parameters))

    def _set_where_not_finite(self, flag: Tensor, tensors: Iterable[Tensor]) -> None:
        """Set a flag on the device where one of the tensors is not finite."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for same_type in by_type.values():
            # This is what mixed precision uses: one pass over all tensors. Multiplying by 1 changes no bit.
            torch._amp_foreach_non_finite_check_and_unscale_(same_type, flag, self._one)

    def read(self) -> bool:
        """Return whether a check since the last reading set the flag, and clear it; waits for the device.

        The answer is the same on all ranks.
        """
        is_set = bool(self._flag.item())
        if is_set:
            self._flag.zero_()
        return is_set


@contextlib.contextmanager
def watch_layers(networks: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Yield a list to which each layer whose output is not finite is added as it is computed; waits in each layer.

    Args:
        networks: The networks to watch, by name.
    """
    culprits: list[str] = []

    def make_hook(path: str) -> Callable[..., None]:
        def add_where_not_finite(module: nn.Module, inputs: Any, output: Any) -> None:
            if not _is_finite(output):
                culprits.append(f"{path} ({type(module).__name__})")

        return add_where_not_finite

    # The first layer in the list is the one where it began: hooks are called as layers finish, inner ones first.
    handles = []
    for net, network in networks.items():
        for name, module in network.named_modules():
            path = f"{net}.{name}" if name else net
            handles.append(module.register_forward_hook(make_hook(path)))
    try:
        yield culprits
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return bool(output.detach().isfinite().all())
    if isinstance(output, (tuple, list)):
        return all(_is_finite(item) for item in output)
    return True


def list_float_buffers(*networks: nn.Module) -> list[Tensor]:
    """Return running statistics and the like, which a forward pass changes."""
    return [buffer for network in networks for buffer in network.buffers() if buffer.is_floating_point()]
