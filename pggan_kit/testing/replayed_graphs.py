"""Record and replay steps on a CPU as a GPU does by CUDA graphs.

The recorder notes each operator with its tensors, and runs it again on the same memory. As with CUDA graphs, plain
numbers are what they were when they were recorded, and asking for a value on the host fails; so does making a tensor
of plain numbers, which would be copied from ordinary memory. Unlike them it does the
work while it records; what it then did to memory is undone at the end of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pggan_kit.testing.support import waits_for_device

LITERALS = ("aten::lift_fresh", "aten::lift_fresh_copy")
"""Operators that a tensor made of plain numbers passes through."""


class Note:
    """An operator as it was called, and what it returned."""

    def __init__(self, operator: Any, arguments: tuple[Any, ...], keywords: dict[str, Any], result: Any) -> None:
        self.operator = operator
        self.arguments = arguments
        self.keywords = keywords
        self.results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]

    def run(self) -> None:
        """Run the operator again, and leave what it returns where it was then."""
        again = self.operator(*self.arguments, **self.keywords)
        for before, now in zip(self.results, (x for x in tree_leaves(again) if isinstance(x, Tensor)), strict=True):
            # Views and results of operators that work in place lie there already.
            if before.data_ptr() != now.data_ptr():
                before.copy_(now)


class Notes(TorchDispatchMode):
    """Notes all operators, and the content of the memory that they change in place, as it was before."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.notes: list[Note] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        keywords = kwargs or {}
        if waits_for_device(operator._schema.name.removeprefix("aten::"), args, keywords):
            raise RuntimeError(f"{operator._schema.name} is not permitted while a graph is recorded")
        self._save_what_changes(operator, args, keywords)
        result = operator(*args, **keywords)
        if operator._schema.name in LITERALS and result.dim() > 0:
            # A single number is a constant of what reads it.
            raise RuntimeError(
                "a tensor made of plain numbers is copied to the device, which is not permitted while a graph is "
                "recorded: make it once, before the steps"
            )
        self.notes.append(Note(operator, args, keywords, result))
        return result

    def _save_what_changes(self, operator: Any, args: Any, keywords: Any) -> None:
        if operator._schema.name == "aten::native_batch_norm":  # its signature does not say that it changes statistics
            self._save(args[3:5])
        for argument, value in zip(operator._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self._save(value)
        for argument in operator._schema.arguments:
            if argument.name in keywords and argument.alias_info is not None and argument.alias_info.is_write:
                self._save(keywords[argument.name])

    def _save(self, value: Any) -> None:
        for tensor in tree_leaves(value):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.before:
                    whole = torch.empty(0, dtype=torch.uint8).set_(storage)
                    self.before[storage.data_ptr()] = (whole, whole.clone())


class ReplayedGraph:
    """A graph of noted operators; see `pggan_kit.system.graphs.Graph`."""

    def __init__(self, count: Callable[[], None]) -> None:
        self._notes = Notes()
        self._count = count
        self._is_recording = False

    @property
    def notes(self) -> list[Note]:
        return self._notes.notes

    def begin(self) -> None:
        self._random_state = torch.get_rng_state()
        self._notes.__enter__()  # type: ignore[no-untyped-call]
        self._is_recording = True

    def end(self) -> None:
        self._notes.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self._is_recording = False
        # Recording does no work: bring back what operators have changed.
        for whole, content in self._notes.before.values():
            whole.copy_(content)
        self._notes.before.clear()
        torch.set_rng_state(self._random_state)

    def abandon(self) -> None:
        if self._is_recording:
            self.end()

    def replay(self) -> None:
        self._count()
        with torch.no_grad():
            for note in self.notes:
                note.run()


class ReplayRecorder:
    """A recorder of such graphs; see `pggan_kit.system.graphs.Recorder`.

    Attributes:
        graphs: All that were made.
        replays: Number of graphs that were replayed.
        forgotten: Number of times that all memory was given up.
    """

    def __init__(self) -> None:
        self.graphs: list[ReplayedGraph] = []
        self.replays = 0
        self.forgotten = 0

    @contextmanager
    def record(self) -> Iterator[None]:
        yield

    def make_graph(self) -> ReplayedGraph:
        self.graphs.append(ReplayedGraph(self._count))
        return self.graphs[-1]

    def _count(self) -> None:
        self.replays += 1

    def forget(self) -> None:
        self.forgotten += 1
