"""Record the work of a device once, and replay it: CUDA graphs, whose launches cost the host next to nothing."""

from __future__ import annotations

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
        """Stop recording after something has failed; the graph is of no use, and eager work must go on."""

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
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def make_graph(self) -> Graph:
        """Return a new graph, whose memory is shared with the others: they are replayed one after the other."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        return CudaGraph(self._device, self._pool, self._leave_pool)

    def _leave_pool(self) -> None:
        # Torch refuses to record in memory that its last graph has given back.
        self._pool = None

    def forget(self) -> None:
        """Give up the memory of all graphs; see `Recorder`."""
        self._pool = None
        torch.cuda.synchronize(self._device)
        # Products of matrices keep work space for each stream on which they have run, some of it among the graphs.
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


class CudaGraph:
    """A CUDA graph; see `Graph`.

    Args:
        device: The device, with its index.
        pool: The handle of the memory that the graphs of a run share.
        leave_pool: A function that is called when a recording has failed: graphs that come later need other memory.
    """

    def __init__(self, device: torch.device, pool: Any, leave_pool: Callable[[], object]) -> None:
        self._device = device
        self._pool = pool
        self._leave_pool = leave_pool
        self._graph = torch.cuda.CUDAGraph()

    def begin(self) -> None:
        """Record from here on; other threads, which fetch the next batch, may go on using the device."""
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def end(self) -> None:
        """Stop recording."""
        self._graph.capture_end()

    def abandon(self) -> None:
        """Stop recording after a failure, and undo what torch leaves undone where a recording has become invalid."""
        try:
            self._graph.capture_end()
        except RuntimeError:
            self._leave_pool()
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
