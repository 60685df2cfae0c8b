"""Guards of the numbers: a loss or gradient that is no longer finite is found before it moves a weight.

On a CPU each optimizer step is checked before it is taken. On a GPU, which must not be waited for, a flag on the device
gathers what each check finds; the loop reads it at ticks, goes back to the last one and takes the steps again, each
checked. See `recovery.py` for what happens then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

MOST_NAMED = 3
"""So many parameters are named in a message; the others are counted."""


class NonFiniteError(Exception):
    """A loss or gradient is not finite. Nothing but the loop sees it.

    Args:
        net: `generator` or `discriminator`; empty where only the flag of a whole tick told.
        terms: the loss's terms that are not finite.
        parameters: those whose gradient is not finite.
    """

    def __init__(self, net: str = "", terms: tuple[str, ...] = (), parameters: tuple[str, ...] = ()) -> None:
        super().__init__(net)
        self.net = net
        self.terms = terms
        self.parameters = parameters

    def __str__(self) -> str:
        told = []
        if self.terms:
            told.append(f"the {self.net}'s {', '.join(self.terms)}")
        if self.parameters:
            more = len(self.parameters) - MOST_NAMED
            rest = f" and {more} more" if more > 0 else ""
            told.append(f"the gradient of its {', '.join(self.parameters[:MOST_NAMED])}{rest}")
        return " and ".join(told) if self.terms else " and ".join(told).replace("its", f"the {self.net}'s", 1)


def checks_each_step(device: torch.device) -> bool:
    """Whether reading a flag in every step costs next to nothing on a device."""
    return device.type == "cpu"


class Guard:
    """Checks the terms and gradients of each minimisation before its optimizer steps.

    Args:
        device: of the networks.

    Attributes:
        each_step: whether a check raises at once; else it only sets the flag.
    """

    def __init__(self, device: torch.device) -> None:
        self.each_step = checks_each_step(device)
        self._found = torch.zeros((), dtype=torch.float32, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)

    def check(
        self,
        net: str,
        losses: Mapping[str, Tensor],
        total: Tensor,
        moving: nn.Module,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """Look at a minimisation after its backward pass.

        Args:
            net: which network it moves.
            losses: the terms, by name, averaged over the ranks.
            total: their sum.
            moving: the network, with its gradients, averaged over the ranks and no longer scaled.
            scaler: of the losses. While it still scales them up, gradients may overflow: its next scale is smaller.

        Raises:
            NonFiniteError: something is not finite, and each step is checked. The same on all ranks.
        """
        gradients = [param.grad for param in moving.parameters() if param.grad is not None]
        scale = scaler._get_scale_async() if scaler is not None and scaler.is_enabled() else None
        if scale is None:
            self._note([total.detach(), *gradients], self._found)
        else:
            overflow = torch.zeros_like(self._found)
            self._note(gradients, overflow)
            self._note([total.detach()], self._found)
            torch.maximum(self._found, overflow * (scale < 1.0), out=self._found)
        if self.each_step and self.read():
            raise NonFiniteError(
                net,
                tuple(name for name, value in losses.items() if not value.isfinite()),
                tuple(n for n, p in moving.named_parameters() if p.grad is not None and not p.grad.isfinite().all()),
            )

    def _note(self, tensors: Iterable[Tensor], found: Tensor) -> None:
        """Set a flag where one of them is not finite."""
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for alike in by_type.values():
            # What mixed precision uses: one pass over all tensors; multiplying by 1 changes no bit.
            torch._amp_foreach_non_finite_check_and_unscale_(alike, found, self._one)

    def read(self) -> bool:
        """Whether a check since the last reading found something; the same on all ranks. Waits for the device."""
        found = bool(self._found.item())
        if found:
            self._found.zero_()
        return found


@contextlib.contextmanager
def watched_layers(nets: Mapping[str, nn.Module]) -> Iterator[list[str]]:
    """Notes the layers whose output is not finite, in the order in which they are computed. Waits in each of them."""
    found: list[str] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not _finite(output):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    handles = [
        module.register_forward_hook(note(f"{net}.{name}" if name else net))
        for net, root in nets.items()
        for name, module in root.named_modules()
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _finite(output: Any) -> bool:
    if isinstance(output, Tensor):
        return bool(output.detach().isfinite().all())
    return all(_finite(item) for item in output) if isinstance(output, (tuple, list)) else True


def float_buffers(*nets: nn.Module) -> list[Tensor]:
    """Running statistics and the like, which a forward pass changes."""
    return [buffer for net in nets for buffer in net.buffers() if buffer.is_floating_point()]
