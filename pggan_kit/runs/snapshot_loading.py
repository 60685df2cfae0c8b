"""Load what a snapshot holds into networks and optimizers, and refuse a snapshot of something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pggan_kit.components import Average
from pggan_kit.errors import RunError, first_line
from pggan_kit.growth.averages import PowerAverage
from pggan_kit.growth.networks import GrowingNetwork
from pggan_kit.runs.snapshot import Snapshot
from pggan_kit.schedule import Schedule

ENDS = ("to_image.", "from_image.")
"""Beginnings of the names of layers to and from the image, which are those of the newest stage."""


def match_averages(averages: Sequence[Average], saved: Snapshot) -> dict[str, str]:
    """Return the average of a snapshot that each of the averages goes on from, by name.

    It is the one of the same name; else the first, since what an average remembers fades.

    Raises:
        RunError: a power function is missing there, which would have to remember all weights since their birth.
    """
    origins = {}
    for average in averages:
        for name in average.names:
            origins[name] = name
            # A new average goes on from the first one, and forgets it; a power function does not forget.
            if name in saved.averages:
                continue
            if isinstance(average, PowerAverage):
                raise RunError(
                    f"the checkpoint has no average {name}, and a power function needs all weights from the start: "
                    f"train from the start with it, or take averages that the checkpoint has: "
                    f"{', '.join(saved.averages)}"
                )
            origins[name] = next(iter(saved.averages))
    return origins


def list_average_notes(averages: Sequence[Average], saved: Snapshot) -> list[str]:
    """Return a sentence for each of the averages that goes on from one of another name; see `match_averages`."""
    origins = match_averages(averages, saved)
    return [f"the average {name} goes on from {origin}" for name, origin in origins.items() if origin != name]


@contextmanager
def refuse_unfit_snapshot() -> Iterator[None]:
    """Turn whatever a snapshot of something else raises while it is loaded into one error.

    Raises:
        RunError: the snapshot does not fit.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise RunError(f"the checkpoint does not fit this experiment: {reason}") from error


def require_same_nets(saved: Snapshot, has_encoder: bool) -> None:
    """Check that a snapshot and an experiment both have an encoder, or both have none.

    Raises:
        RunError: one of them alone has an encoder.
    """
    if has_encoder and not saved.encoder:
        raise RunError(
            "the checkpoint has no encoder, and this config has one: bind train.encoder_architecture to None"
        )
    if saved.encoder and not has_encoder:
        raise RunError("the checkpoint has an encoder, and this config has none: bind train.encoder_architecture")


def require_stage_in_schedule(saved: Snapshot, schedule: Schedule) -> None:
    """Check that a schedule has the stage that a snapshot is in.

    Raises:
        RunError: it has fewer stages.
    """
    if saved.stage >= len(schedule.stages):
        raise RunError(f"the checkpoint is in stage {saved.stage} of a schedule of {len(schedule.stages)} stages")


def match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Give the tensors that an optimizer keeps of a parameter that parameter's strides.

    Fused optimizers ignore strides, and the checkpoint may be of a run with another memory format.
    """
    for param, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == param.shape and value.stride() != param.stride():
                kept[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def load_weights(net: nn.Module, saved: Mapping[str, Tensor], name: str) -> None:
    """Load a network's weights.

    Args:
        net: the network.
        saved: its weights, by name.
        name: the network's name, for errors.

    Raises:
        RunError: they belong to another architecture; the message names the first piece that differs.
    """
    # Checked here, because torch would list every difference and not the first one.
    own = net.state_dict()
    for key in [*own, *saved]:
        own_shape = _shape_of(own, key)
        saved_shape = _shape_of(saved, key)
        if own_shape != saved_shape:
            raise RunError(
                f"the checkpoint's {name} is of another architecture: {key} is {saved_shape} there and {own_shape} in "
                "this config"
            )
    net.load_state_dict(saved)


def load_pieces(net: GrowingNetwork, saved: Mapping[str, Tensor], name: str) -> list[nn.Parameter]:
    """Load the weights of a network that has grown no further than `net` into the pieces that both have.

    Args:
        net: the network.
        saved: weights by name, of a network without an old path.
        name: the network's name, for errors.

    Returns:
        The parameters that were replaced.

    Raises:
        RunError: a piece is of another architecture; the message names the first.
    """
    # How D resizes depends on the size of both networks.
    blocks = {_block_of(key) for key in saved}
    own_ends: tuple[str, ...] = ("resize.",)
    if len(blocks - {None}) < len(net.blocks):
        own_ends += ENDS
    own = net.state_dict()
    taken = {key: value for key, value in saved.items() if not key.startswith(own_ends)}
    kept = {key: value for key, value in own.items() if key.startswith(own_ends) or _block_of(key) not in blocks}
    load_weights(net, {**taken, **kept}, name)
    return [param for key, param in net.named_parameters() if key in taken]


def _block_of(key: str) -> str | None:
    """Return the name of the block that a tensor belongs to; None for those of other pieces."""
    first, _, rest = key.partition(".")
    if first != "blocks":
        return None
    return rest.partition(".")[0]


def _shape_of(tensors: Mapping[str, Tensor], key: str) -> tuple[int, ...] | str:
    if key not in tensors:
        return "nothing"
    return tuple(tensors[key].shape)
