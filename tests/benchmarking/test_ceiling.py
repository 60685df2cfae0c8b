"""Test what is measured of operations alone: on a GPU a burst of short ones is one graph."""

from __future__ import annotations

import weakref

import pytest
import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.benchmarking.flops import Call, Like
from pggan_kit.testing.replayed_graphs import ReplayedGraph, ReplayRecorder


def test_a_burst_of_a_gpu_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the products that are really computed: in a replay, as many as there are calls in a burst."""
    recorder = ReplayRecorder()
    monkeypatch.setattr(ceiling, "choose_graph_recorder", lambda device: recorder)
    monkeypatch.setattr(ceiling, "MOST_CALLS", 5)
    total = torch.zeros(())
    ceiling._measure_best(lambda: total.add_(1.0), torch.device("cpu"))
    (graph,) = recorder.graphs
    assert len(graph.notes) == 5
    assert recorder.replays == ceiling.ROUNDS
    # Two calls that tell the length of a burst, and the bursts.
    assert float(total) == 2 + 5 * ceiling.ROUNDS


class NotingGraph(ReplayedGraph):
    """A graph that tells its recorder whether it is being recorded."""

    def __init__(self, recorder: FullWhileRecorded) -> None:
        super().__init__(lambda: None)
        self.recorder = recorder

    def begin(self) -> None:
        super().begin()
        self.recorder.is_recording = True

    def end(self) -> None:
        self.recorder.is_recording = False
        super().end()


class FullWhileRecorded(ReplayRecorder):
    """A recorder of a device whose memory ends while a burst is recorded, at work that is small enough elsewhere.

    Attributes:
        made: All graphs that were made.
        alive: The number of graphs that were alive each time that all memory was given up.
        is_recording: Whether a graph is being recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[weakref.ref[NotingGraph]] = []
        self.alive: list[int] = []
        self.is_recording = False

    def make_graph(self) -> NotingGraph:
        graph = NotingGraph(self)
        self.made.append(weakref.ref(graph))
        return graph

    def forget(self) -> None:
        super().forget()
        self.alive.append(sum(graph() is not None for graph in self.made))


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> FullWhileRecorded:
    recorder = FullWhileRecorded()
    monkeypatch.setattr(ceiling, "choose_graph_recorder", lambda device: recorder)
    monkeypatch.setattr(ceiling, "MOST_CALLS", 3)
    return recorder


def test_memory_that_ends_while_a_burst_is_recorded_ends_the_recording(
    full: FullWhileRecorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the speed of the largest product that fits, and go on: what comes later is not recorded any more."""
    matmul = torch.matmul

    def multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        if full.is_recording and len(left) == 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return matmul(left, right)

    monkeypatch.setattr(torch, "matmul", multiply)
    monkeypatch.setattr(ceiling, "FIRST_SIDE", 64)
    monkeypatch.setattr(ceiling, "DEFAULT_SIDE", 256)
    assert ceiling.measure_matrix_product(torch.float32, torch.device("cpu")) is not None
    assert not full.is_recording
    assert torch.ones(()).item() == 1.0
    assert full.forgotten == len(full.made) == 2


def test_memory_that_ends_in_a_burst_of_a_stage_s_own_operations_ends_the_recording(full: FullWhileRecorded) -> None:
    def convolve(images: torch.Tensor) -> torch.Tensor:
        if full.is_recording:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return images

    call = Call(convolve, (Like((2, 2), (2, 1), torch.float32),), 8, torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        ceiling.measure_alone({call: 1.0}, torch.float32, torch.device("cpu"))
    assert not full.is_recording
    assert torch.ones(()).item() == 1.0
    assert full.forgotten == 1


def test_the_memory_of_a_burst_is_free_for_the_next(full: FullWhileRecorded) -> None:
    for _ in range(2):
        ceiling._measure_best(lambda: torch.ones(2) + 1, torch.device("cpu"))
    assert full.alive == [0, 0]
