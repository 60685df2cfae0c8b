"""Keep apart what a step does on the host and what it asks of the device, so that the latter can be replayed.

An update draws reals, latents and numbers on the host, and calls what cannot be part of a CUDA graph. It does all that
through a `HostWork`: an `EagerHostWork` does it at once, and notes it; a `ReplayedHostWork`, made from those notes,
does it before and after the graphs of a step, which find their inputs in memory that stays where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from pggan_kit.system.graphs import Graph, Recorder

T = TypeVar("T")

Draw = Callable[[], Sequence[Tensor]]
"""A function that draws tensors for the step that begins at the present clock, on the host or on the device."""

ALIGNMENT = 16
"""Bytes to whose multiples the places of a block are rounded."""


class UnfitForCaptureError(Exception):
    """A step cannot be captured, and why; only the capturing code catches it."""


@dataclass
class StepStart:
    """What a draw has to know of the step's beginning, beside the clock.

    Attributes:
        generator_updates: Updates of G in the stage before the step.
    """

    generator_updates: int = 0


class HostWork(Protocol):
    """What a step does on the host."""

    def bring(self, draw: Draw) -> tuple[Tensor, ...]:
        """Return what `draw` draws, on the device."""

    def call_before(self, action: Callable[[], object]) -> None:
        """Call a function before the device's work that follows; it may be called before the step's first work."""

    def call_between(self, action: Callable[[], object]) -> None:
        """Call a function at this place of the device's work, which cannot be recorded."""

    def call_after(self, action: Callable[[], object]) -> None:
        """Call a function after the device's work so far; it may be called after the step's last work."""


class Brought(NamedTuple):
    """A draw, and what it drew: tensors on the device, and whether each came from the host."""

    draw: Draw
    tensors: tuple[Tensor, ...]
    from_host: tuple[bool, ...]


class EagerHostWork:
    """The host's work of a step that runs eagerly: all of it at once.

    Args:
        device: The device of the networks.

    Attributes:
        brought: What was drawn so far.
        before: What was called before.
        is_outside: Whether what runs now is the host's work, which graphs leave out.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.brought: list[Brought] = []
        self.before: list[Callable[[], object]] = []
        self.is_outside = False

    def bring(self, draw: Draw) -> tuple[Tensor, ...]:
        """Return what `draw` draws, on the device; see `HostWork`."""
        drawn = tuple(self._run(draw))
        from_host = tuple(tensor.device != self._device for tensor in drawn)
        if self._device.type == "cpu":
            from_host = (True,) * len(drawn)
        tensors = tuple(copy_to_device(tensor, self._device) for tensor in drawn)
        self.brought.append(Brought(draw, tensors, from_host))
        return tensors

    def call_before(self, action: Callable[[], object]) -> None:
        """Call a function; see `HostWork`."""
        self.before.append(action)
        self._run(action)

    def call_between(self, action: Callable[[], object]) -> None:
        """Call a function; see `HostWork`."""
        self._run(action)

    def call_after(self, action: Callable[[], object]) -> None:
        """Call a function; see `HostWork`."""
        self._run(action)

    def _run(self, action: Callable[[], T]) -> T:
        self.is_outside = True
        try:
            return action()
        finally:
            self.is_outside = False


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; the host does not wait for the copy.

    From ordinary memory it would: only pinned memory is copied while the host goes on. Torch's allocator of pinned
    memory gives a block to nobody else before the copy is done.
    """
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class InputBlock:
    """Tensors on a device that stay where they are, filled from one block of pinned memory.

    Args:
        brought: What an eager step of the same kind drew.
        device: The device.
    """

    def __init__(self, brought: Sequence[Brought], device: torch.device) -> None:
        self._device = device
        self._draws = [each.draw for each in brought]
        self.tensors: list[tuple[Tensor, ...]] = []

        # Places in the block, one behind the other.
        self._places: list[list[tuple[int, int] | None]] = []
        size = 0
        for each in brought:
            places: list[tuple[int, int] | None] = []
            for tensor, from_host in zip(each.tensors, each.from_host, strict=True):
                if not from_host:
                    places.append(None)
                    continue
                count = tensor.numel() * tensor.element_size()
                places.append((size, size + count))
                size = math.ceil((size + count) / ALIGNMENT) * ALIGNMENT
            self._places.append(places)

        # What is drawn on the device itself is copied there, to a place that stays.
        self._block = torch.empty(size, dtype=torch.uint8, device=device)
        for each, places in zip(brought, self._places, strict=True):
            fixed = []
            for tensor, place in zip(each.tensors, places, strict=True):
                if place is None:
                    fixed.append(torch.empty_like(tensor))
                else:
                    fixed.append(_view_place(self._block, place, tensor))
            self.tensors.append(tuple(fixed))

    def fill(self) -> None:
        """Draw everything for the step at the present clock, and copy it to the device.

        Raises:
            UnfitForCaptureError: Something has another shape or type than before.
        """
        # A new pinned block each time: the last one may still be read.
        pinned = self._device.type == "cuda"
        block = torch.empty(self._block.numel(), dtype=torch.uint8, pin_memory=pinned)
        for draw, places, fixed in zip(self._draws, self._places, self.tensors, strict=True):
            drawn = tuple(draw())
            if [(tensor.shape, tensor.dtype) for tensor in drawn] != [(slot.shape, slot.dtype) for slot in fixed]:
                raise UnfitForCaptureError("what it draws changes its shape")
            for tensor, place, slot in zip(drawn, places, fixed, strict=True):
                if place is None:
                    slot.copy_(tensor, non_blocking=True)
                else:
                    _view_place(block, place, tensor).copy_(tensor)
        self._block.copy_(block, non_blocking=True)


def _view_place(block: Tensor, place: tuple[int, int], like: Tensor) -> Tensor:
    """Return a place of a block of bytes as a tensor of the shape and type of another one."""
    begin, end = place
    if begin == end:
        return torch.empty(like.shape, dtype=like.dtype, device=block.device)
    return block[begin:end].view(like.dtype).view(like.shape)


@dataclass
class ReplayedHostWork:
    """The host's work around the graphs of a step.

    While the graphs are recorded, it is the step's `HostWork`: it hands out the fixed inputs, and where something has
    to be called between, one graph ends, is replayed, and another one begins. Each step after that is a `replay`.

    Attributes:
        before: What is called before each replay.
        block: The fixed inputs.
        recorder: The maker of the graphs.
        parts: The graphs, and what is called between them.
        after: What is called after them.
    """

    before: list[Callable[[], object]]
    block: InputBlock
    recorder: Recorder
    parts: list[Graph | Callable[[], object]] = field(default_factory=list)
    after: list[Callable[[], object]] = field(default_factory=list)
    _graph: Graph | None = None
    _handed_out: int = 0

    def prepare(self) -> None:
        """Do what comes before the graphs: set numbers that move, draw the inputs."""
        for action in self.before:
            action()
        self.block.fill()

    def begin(self) -> None:
        """Begin to record a graph."""
        self._graph = self.recorder.make_graph()
        self._graph.begin()

    def end(self) -> None:
        """End the graph that is being recorded, and do its work."""
        if self._graph is None:
            return
        graph = self._graph
        graph.end()  # where that fails, the graph is still to be abandoned
        self._graph = None
        graph.replay()
        self.parts.append(graph)

    def abandon(self) -> None:
        """Stop recording after a failure."""
        if self._graph is not None:
            self._graph.abandon()
            self._graph = None
        self.parts = []

    def require_all_handed_out(self) -> None:
        """Check that the step has drawn what the eager step before it drew.

        Raises:
            UnfitForCaptureError: It has not.
        """
        if self._handed_out != len(self.block.tensors):
            raise UnfitForCaptureError("it does not draw the same each time")

    def bring(self, draw: Draw) -> tuple[Tensor, ...]:
        """Return the fixed tensors that each replay fills; see `HostWork`.

        Raises:
            UnfitForCaptureError: The step draws more than the eager step before it.
        """
        if self._handed_out == len(self.block.tensors):
            raise UnfitForCaptureError("it does not draw the same each time")
        self._handed_out += 1
        return self.block.tensors[self._handed_out - 1]

    def call_before(self, action: Callable[[], object]) -> None:
        """Leave a function to `prepare`, which calls those of the eager step before; see `HostWork`."""

    def call_between(self, action: Callable[[], object]) -> None:
        """Call a function between two graphs; see `HostWork`."""
        self.end()
        action()
        self.parts.append(action)
        self.begin()

    def call_after(self, action: Callable[[], object]) -> None:
        """Note a function that is called after the graphs; see `HostWork`."""
        self.after.append(action)

    def count_graphs(self) -> int:
        """Return the number of graphs."""
        return sum(not callable(part) for part in self.parts)

    def replay(self) -> None:
        """Take a step: all of the host's work, and the graphs."""
        self.prepare()
        for part in self.parts:
            if callable(part):
                part()
            else:
                part.replay()
        self.finish()

    def finish(self) -> None:
        """Do what comes after the graphs."""
        for action in self.after:
            action()
