"""Record one backward pass, with all derivatives in it, as a pure function of tensors that a compiler can take whole.

The pass is recorded as it runs eagerly, operation by operation below autograd: terms, penalties that differentiate the
discriminator, and the gradients of both. No autograd is left to do in the recording. (A network that is compiled by
itself, and differentiated twice from outside, silently loses the gradient of the penalty.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from pggan_kit.experiment import Experiment
from pggan_kit.runs.state import TrainState
from pggan_kit.training.step import Differentiated, Work, compute_terms, sum_losses

LITERALS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)
"""Operations that read a tensor which was made from plain numbers within the pass."""


class ImpureError(Exception):
    """A pass cannot be recorded once and run again: it changes or reads more than what it is given."""


class Recording(NamedTuple):
    """A backward pass as a function of tensors.

    Attributes:
        graph: The function: (weights and buffers of all networks, then `list_varying_tensors(work)`) -> losses, kept
            tensors and gradients, in one list.
        fixed: The weights and buffers, as the networks hold them.
        parameters: The parameters that move and have a gradient, in its order among the outputs.
        losses: Names of the losses.
        kept: Names of the kept tensors.
    """

    graph: GraphModule
    fixed: list[Tensor]
    parameters: list[nn.Parameter]
    losses: list[str]
    kept: list[str]

    @property
    def gradients_begin(self) -> int:
        """Return the number of the first gradient among the outputs of `graph`."""
        return len(self.losses) + len(self.kept)

    def list_inputs(self, work: Work) -> list[Tensor]:
        """Return the arguments of `graph` for a backward pass."""
        return [*self.fixed, *list_varying_tensors(work)]

    def split_outputs(self, outputs: Sequence[Tensor]) -> tuple[Differentiated, list[Tensor]]:
        """Return the outputs of `graph` as the eager pass returns them, and the gradients in their parameters' layout.

        Args:
            outputs: What `graph`, or its compiled form, returned.
        """
        # The outputs are losses, kept tensors and gradients, one after the other.
        losses_end = len(self.losses)
        kept_end = self.gradients_begin
        losses = dict(zip(self.losses, outputs[:losses_end], strict=True))
        kept = dict(zip(self.kept, outputs[losses_end:kept_end], strict=True))
        gradients = [
            _match_layout(parameter, gradient)
            for parameter, gradient in zip(self.parameters, outputs[kept_end:], strict=True)
        ]
        return (losses, kept), gradients


def list_varying_tensors(work: Work) -> list[Tensor]:
    """Return the tensors that differ from step to step."""
    tensors = [rows for rows in work.batch.values() if rows is not None]
    tensors += work.alpha.values()
    if work.factor is not None:
        tensors.append(work.factor)
    return tensors


@dataclass
class _OutputNames:
    """Names of what a recorded pass returns, known once it has run."""

    losses: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    gradients: list[str] = field(default_factory=list)


def record(experiment: Experiment, state: TrainState, work: Work) -> Recording:
    """Record a backward pass. Nothing is computed, no random number is drawn, and nothing changes.

    Raises:
        ImpureError: The pass changes buffers of a network, or reads a tensor that is neither a network's nor in the
            batch.
        Exception: What code raises that depends on the values of tensors.
    """
    networks = nn.ModuleDict(state.networks)
    parameters = dict(networks.named_parameters())
    buffers = dict(networks.named_buffers())
    names = [*parameters, *buffers]
    learning = set(state.network(work.net).learning_weights())
    moving = [name for name, param in parameters.items() if param in learning]
    # A detached tensor shares the memory of its parameter: the recording sees the weights as they change.
    fixed = [tensor.detach() for tensor in (*parameters.values(), *buffers.values())]
    returned = _OutputNames()

    def run(*tensors: Tensor) -> list[Tensor]:
        held = dict(zip(names, (tensor.detach() for tensor in tensors), strict=False))
        versions = {name: tensor._version for name, tensor in held.items()}
        for name in moving:
            held[name].requires_grad_(True)

        # Run the pass on these tensors in the place of the networks' own.
        replaced = {f"networks.{name}": tensor for name, tensor in held.items()}
        given = tensors[len(names) :]
        result, gradients = functional_call(_Pass(networks, experiment, state), replaced, (work, given))
        changed = [name for name, version in versions.items() if held[name]._version != version]
        if changed:
            raise ImpureError(f"it changes {changed[0]} while it runs")

        # What the pass returns, as a flat list; `returned` has its names.
        losses, kept = result
        reached = {name: g for name, g in zip(moving, gradients, strict=True) if g is not None}
        returned.losses = list(losses)
        returned.kept = list(kept)
        returned.gradients = list(reached)
        return [*losses.values(), *kept.values(), *reached.values()]

    # Record it on fake tensors; a tensor that is no input would be read as it is now, at each later step.
    trace = make_fx(run, tracing_mode="fake", _allow_non_fake_inputs=True)
    graph = trace(*fixed, *list_varying_tensors(work))
    _require_closed(graph)
    reached_parameters = [parameters[name] for name in returned.gradients]
    return Recording(graph, fixed, reached_parameters, returned.losses, returned.kept)


class _Pass(nn.Module):
    """All networks as one module, so that the tensors of all can be replaced at once."""

    def __init__(self, networks: nn.ModuleDict, experiment: Experiment, state: TrainState) -> None:
        super().__init__()
        self.networks = networks
        self._experiment = experiment
        self._state = state

    def forward(self, work: Work, given: Sequence[Tensor]) -> tuple[Differentiated, Sequence[Tensor | None]]:
        """Run the pass on other tensors than the work's own.

        Args:
            work: The pass.
            given: Tensors in the order of `list_varying_tensors`.

        Returns:
            Losses and kept tensors, and a gradient for each moving parameter.
        """
        # Put the other tensors in the place of the work's own.
        remaining = iter(given)
        batch = {name: None if rows is None else next(remaining) for name, rows in work.batch.items()}
        alpha = {path: next(remaining) for path in work.alpha}
        replaced = work._replace(batch=batch, alpha=alpha)
        moving = [param for param in self.networks[work.net].parameters() if param.requires_grad]

        # Compute terms and gradients, as `UpdateContext._run_backward` does eagerly.
        with torch.enable_grad():
            with self._experiment.autocast(self._state.device):
                losses, kept = compute_terms(self._experiment, self._state, replaced)
            objective = sum_losses(losses)
            if work.factor is not None:
                objective = objective * next(remaining)
            gradients = torch.autograd.grad(objective, moving, allow_unused=True)

        detached_losses = {name: value.detach() for name, value in losses.items()}
        detached_kept = {name: value.detach() for name, value in kept.items()}
        return (detached_losses, detached_kept), gradients


def _require_closed(graph: GraphModule) -> None:
    """Refuse a recording that reads other tensors than its inputs: they would be read as they are now."""
    for node in graph.graph.nodes:
        if node.op == "get_attr" and any(user.target not in LITERALS for user in node.users):
            shape = tuple(getattr(graph, node.target).shape)
            raise ImpureError(f"it reads a tensor of shape {shape} that is neither in a network nor in the batch")


def _match_layout(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return a gradient in its parameter's strides, in which fused optimizers read it whatever its own are."""
    if gradient.stride() == parameter.stride():
        return gradient
    return torch.empty_like(parameter).copy_(gradient)
