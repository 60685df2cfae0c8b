"""Test what is undone after a recording that failed, by a stand-in that keeps torch's books; see tests/test_gpu.py."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pggan_kit.system.graphs import CudaRecorder, Graph


class Books:
    """What torch notes of recordings: users of each block of memory, the blocks being recorded to, and the generator.

    As in torch 2.11, memory that its last user has given back is refused, and a recording that cannot end leaves
    everything as it was while it ran.
    """

    def __init__(self) -> None:
        self.users: Counter[int] = Counter()
        self.recorded: list[int] = []
        self.handles = 0
        self.generator_is_recorded = False

    def make_handle(self) -> int:
        self.handles += 1
        return self.handles

    def stop_recording(self, index: int, pool: int) -> None:
        if pool not in self.recorded:
            raise RuntimeError("not currently recording to this pool")
        self.recorded.remove(pool)

    def release(self, index: int, pool: int) -> None:
        self.users[pool] -= 1

    def make_graph(self) -> Any:
        books = self
        fails_at: list[str] = []

        def begin(pool: int, capture_error_mode: str) -> None:
            assert capture_error_mode == "thread_local"
            books.generator_is_recorded = True
            if pool in books.users and books.users[pool] == 0:
                raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
            books.users[pool] += 1
            books.recorded.append(pool)
            graph.pool = pool

        def end() -> None:
            if "begin to end" in fails_at:
                raise RuntimeError("the recording was invalidated")
            books.stop_recording(0, graph.pool)
            if "end" in fails_at:
                fails_at.append("begin to end")
                raise RuntimeError("there is no memory to make the graph")
            books.generator_is_recorded = False

        graph = SimpleNamespace(capture_begin=begin, capture_end=end, fails_at=fails_at, pool=0)
        return graph


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    books = Books()

    def set_state(state: object) -> None:
        books.generator_is_recorded = False

    generator = SimpleNamespace(graphsafe_set_state=set_state, graphsafe_get_state=object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", books.make_graph)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", books.make_handle)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(torch, "Generator", lambda device: generator)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", books.stop_recording, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", books.release, raising=False)
    return books


def fail(graph: Graph, where: str) -> None:
    graph._graph.fails_at.append(where)  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"recording|memory"):
        graph.end()
    graph.abandon()


@pytest.mark.parametrize("where", ["begin to end", "end"])
@pytest.mark.parametrize("others", [0, 1])
def test_a_recording_that_failed_leaves_nothing_behind(books: Books, where: str, others: int) -> None:
    """Let recordings fail one after the other, alone or beside a graph that is in use."""
    recorder = CudaRecorder(torch.device("cuda", 0))
    for _ in range(others):
        kept = recorder.make_graph()
        kept.begin()
        kept.end()
    for _ in range(2):
        graph = recorder.make_graph()
        graph.begin()
        fail(graph, where)
        assert not books.generator_is_recorded
        assert not books.recorded
    if where == "begin to end":
        assert sum(books.users.values()) == others

    graph = recorder.make_graph()
    graph.begin()
    graph.end()
    assert not books.generator_is_recorded
    assert not books.recorded
