"""One backward pass, with all derivatives in it, as a pure function of tensors that a compiler can take whole.

The pass is recorded as it runs eagerly, operation by operation below autograd: terms, penalties that differentiate the
discriminator, and the gradients of both. No autograd is left to do in the recording. (A network that is compiled by
itself, and differentiated twice from outside, loses the gradient of the penalty without a word.)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pggan_kit.experiment import Experiment
from pggan_kit.runs.state import TrainState
from pggan_kit.training.step import Differentiated, Work, players, total

LITERALS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
"""What reads a tensor that was made from numbers within the pass."""


class ImpureError(Exception):
    """A pass cannot be recorded once and run again: it changes or reads more than what it is given."""


class Recording(NamedTuple):
    """A backward pass as a function of tensors.

    Attributes:
        graph: (weights and buffers of both networks, then `varying(work)`) -> losses, kept tensors, gradients, flat.
        fixed: weights and buffers, as the networks hold them.
        parameters: those that move and have a gradient, in its order among the outputs.
        losses, kept: names of the outputs.
    """

    graph: GraphModule
    fixed: list[Tensor]
    parameters: list[nn.Parameter]
    losses: list[str]
    kept: list[str]

    def inputs(self, work: Work) -> list[Tensor]:
        """What `graph` is called with."""
        return [*self.fixed, *varying(work)]

    def read(self, outputs: Sequence[Tensor]) -> tuple[Differentiated, list[Tensor]]:
        """What `graph` returned, as the eager pass returns it; and the gradients, in their parameters' layout."""
        ends = len(self.losses), len(self.losses) + len(self.kept)
        losses = dict(zip(self.losses, outputs, strict=False))
        kept = dict(zip(self.kept, outputs[ends[0] :], strict=False))
        gradients = [
            _laid_out_as(parameter, gradient)
            for parameter, gradient in zip(self.parameters, outputs[ends[1] :], strict=True)
        ]
        return (losses, kept), gradients


def varying(work: Work) -> list[Tensor]:
    """The tensors that differ from step to step."""
    batch = [rows for rows in work.part.values() if rows is not None]
    return [*batch, *work.alpha.values(), *([] if work.factor is None else [work.factor])]


def record(experiment: Experiment, state: TrainState, work: Work) -> Recording:
    """Record a pass. Nothing is computed, no random number is drawn and nothing changes.

    Raises:
        ImpureError: it changes buffers of a network, or reads a tensor that is neither a network's nor in the batch.
        Exception: whatever code raises that depends on the values of tensors.
    """
    nets = nn.ModuleDict({"generator": state.generator, "discriminator": state.discriminator})
    parameters, buffers = dict(nets.named_parameters()), dict(nets.named_buffers())
    names = [*parameters, *buffers]
    moving = [name for name in parameters if name.startswith(work.net + ".")]
    # By reference to what holds them: a detached tensor shares its parameter's memory.
    fixed = [tensor.detach() for tensor in (*parameters.values(), *buffers.values())]
    found: tuple[list[str], list[str], list[str]] = ([], [], [])

    def run(*tensors: Tensor) -> list[Tensor]:
        held = dict(zip(names, (tensor.detach() for tensor in tensors), strict=False))
        versions = {name: tensor._version for name, tensor in held.items()}
        for name in moving:
            held[name].requires_grad_(True)
        replaced = {f"nets.{name}": tensor for name, tensor in held.items()}
        given = (work, tensors[len(names) :])
        result, gradients = functional_call(_Pass(nets, experiment, state), replaced, given)
        changed = [name for name, version in versions.items() if held[name]._version != version]
        if changed:
            raise ImpureError(f"it changes {changed[0]} while it runs")
        (losses, kept), reached = result, {name: g for name, g in zip(moving, gradients, strict=True) if g is not None}
        for names_of, into in zip((losses, kept, reached), found, strict=True):
            into[:] = names_of
        return [*losses.values(), *kept.values(), *reached.values()]

    graph = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)(*fixed, *varying(work))
    _require_closed(graph)
    return Recording(graph, fixed, [parameters[name] for name in found[2]], *found[:2])


class _Pass(nn.Module):
    """Both networks as one module, so that the tensors of both can be replaced at once."""

    def __init__(self, nets: nn.ModuleDict, experiment: Experiment, state: TrainState) -> None:
        super().__init__()
        self.nets = nets
        self._experiment = experiment
        self._state = state

    def forward(self, work: Work, given: Sequence[Tensor]) -> tuple[Differentiated, Sequence[Tensor | None]]:
        """The pass on other tensors than the work's own: what it returns, and a gradient for each moving parameter."""
        left = iter(given)
        part = {name: None if rows is None else next(left) for name, rows in work.part.items()}
        alpha = {path: next(left) for path in work.alpha}
        moving = [value for value in self.nets[work.net].parameters()]
        with torch.enable_grad():
            with self._experiment.autocast(self._state.device, work.precision):
                losses, kept = work.terms(*players(self._experiment, self._state, alpha), part)
            aim = total(losses) if work.factor is None else total(losses) * next(left)
            gradients = torch.autograd.grad(aim, moving, allow_unused=True)
        detached = [{name: value.detach() for name, value in values.items()} for values in (losses, kept)]
        return (detached[0], detached[1]), gradients


def _require_closed(graph: GraphModule) -> None:
    """A tensor from elsewhere would be read as it is now, or as its owner leaves it, which cannot be known."""
    for node in graph.graph.nodes:
        if node.op == "get_attr" and any(user.target not in LITERALS for user in node.users):
            shape = tuple(getattr(graph, node.target).shape)
            raise ImpureError(f"it reads a tensor of shape {shape} that is neither in a network nor in the batch")


def _laid_out_as(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Fused optimizers read a gradient in its parameter's strides, whatever it has."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
