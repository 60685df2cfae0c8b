"""Record the work of a device once, and replay it: CUDA graphs, whose launches cost the host next to nothing."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch


class Graph(Protocol):
    """A recorded piece of a device's work."""

    def begin(self) -> None:
        """Record what this thread asks of the device from here on, without doing it."""

    def end(self) -> None:
        """Stop recording."""

    def abandon(self) -> None:
        """Stop recording, if it goes on; the graph is of no use, and eager work must go on.

        It may be called at any time: before `begin`, after `begin` or `end` has raised, and after both.
        """

    def replay(self) -> None:
        """Do the recorded work again, on the same memory."""


class Recorder(Protocol):
    """Makes the graphs of one run, which share their memory."""

    def record(self) -> Any:
        """Return a context in which graphs are recorded and replayed, with all earlier work done before."""

    def make_graph(self) -> Graph:
        """Return a new graph."""

    def forget(self) -> None:
        """Give up the memory of all graphs, of which none is replayed any more."""


class CudaRecorder:
    """A recorder of CUDA graphs on a device.

    Args:
        device: The device, with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._pool: Any = None

    @contextmanager
    def record(self) -> Iterator[None]:
        """Let the block run on a stream of its own, as recording demands; see `Recorder`."""
        # Blocks that eager steps have left in torch's cache would lie idle beside those of the graphs.
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with _without_collection(), torch.cuda.stream(self._stream):
                yield
        except BaseException:
            # A stream that is still being recorded cannot be waited for; what failed first is what matters.
            with contextlib.suppress(RuntimeError):
                current.wait_stream(self._stream)
            raise
        current.wait_stream(self._stream)

    def make_graph(self) -> Graph:
        """Return a new graph, whose memory is shared with the others: they are replayed one after the other."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaGraph(self._device, self._pool, self._leave_pool)

    def _leave_pool(self) -> None:
        self._pool = None

    def forget(self) -> None:
        """Give up the memory of all graphs; see `Recorder`."""
        self._pool = None
        torch.cuda.synchronize(self._device)
        _clear_work_spaces()
        torch.cuda.empty_cache()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the garbage collector from running: a graph that it destroys may invalidate one that is being recorded."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _clear_work_spaces() -> None:
    """Let the next product of matrices on each stream take new work space; torch keeps one for each stream.

    A graph that took over the work space of eager work, or of graphs in other memory, would go on writing there after
    it was freed. One that left its own behind would keep its memory from being freed.
    """
    torch._C._cuda_clearCublasWorkspaces()


class CudaGraph:
    """A CUDA graph; see `Graph`.

    Args:
        device: The device, with its index.
        pool: The handle of the memory that the graphs of a run share.
        leave_pool: A function that is called when a graph is of no use: graphs that come later need other memory.
    """

    def __init__(self, device: torch.device, pool: Any, leave_pool: Callable[[], object]) -> None:
        self._device = device
        self._pool = pool
        self._leave_pool = leave_pool
        self._graph = torch.cuda.CUDAGraph()
        self._is_recording = False

    def begin(self) -> None:
        """Record from here on; other threads, which fetch the next batch, may go on using the device."""
        _clear_work_spaces()
        self._is_recording = True  # also where beginning fails: torch has begun something by then
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def end(self) -> None:
        """Stop recording."""
        self._graph.capture_end()
        self._is_recording = False
        _clear_work_spaces()

    def abandon(self) -> None:
        """Stop recording, and undo what torch leaves undone where a recording has become invalid; see `Graph`."""
        # Torch refuses to record in memory that its last graph has given back, which this one will do.
        self._leave_pool()
        if not self._is_recording:
            return
        self._is_recording = False
        try:
            self._graph.capture_end()
        except RuntimeError:
            self._undo_recording()
        _clear_work_spaces()

    def _undo_recording(self) -> None:
        """Undo what torch has begun for a recording, and does not undo where that cannot end."""
        index = self._device.index or 0
        # The generator would go on as if its numbers were recorded.
        generator = torch.cuda.default_generators[index]
        generator.graphsafe_set_state(torch.Generator(self._device).graphsafe_get_state())
        # Memory would go on being kept for the recording, and blocks that two streams have used never be freed.
        try:
            torch._C._cuda_endAllocateToPool(index, self._pool)
        except RuntimeError:
            return  # It had ended before the failure: the graph itself gives its memory back.
        torch._C._cuda_releasePool(index, self._pool)

    def replay(self) -> None:
        """Do the recorded work again, on the current stream."""
        self._graph.replay()
