"""Test what is undone after a recording that failed, by a stand-in that keeps torch's books; see tests/test_gpu.py."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter, defaultdict
from types import SimpleNamespace

import pytest
import torch

from pggan_kit.system.graphs import CudaRecorder, Graph

EAGER = 0
"""Handle of the memory of what is not recorded."""


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
        self.work_space: int | None = None
        self.written: defaultdict[int, set[int]] = defaultdict(set)

    def make_handle(self) -> int:
        self.handles += 1
        return self.handles

    def stop_recording(self, index: int, pool: int) -> None:
        if pool not in self.recorded:
            raise RuntimeError("not currently recording to this pool")
        self.recorded.remove(pool)

    def release(self, index: int, pool: int) -> None:
        self.users[pool] -= 1

    def multiply(self) -> None:
        """Multiply matrices; each stream, here the only one, keeps the work space that its first product has taken."""
        if self.work_space is None:
            self.work_space = self.recorded[-1] if self.recorded else EAGER
        if self.recorded:
            self.written[self.recorded[-1]].add(self.work_space)

    def clear_work_spaces(self) -> None:
        self.work_space = None


class BooksGraph:
    """A graph of torch's, which fails where a test says so, and gives its memory back as it is destroyed."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.fails_at: list[str] = []
        self.pool = 0
        self.gives_back = False

    def capture_begin(self, pool: int, capture_error_mode: str) -> None:
        assert capture_error_mode == "thread_local"
        self.books.generator_is_recorded = True
        if pool in self.books.users and self.books.users[pool] == 0:
            raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")
        self.books.users[pool] += 1
        self.books.recorded.append(pool)
        self.pool = pool

    def capture_end(self) -> None:
        if "begin to end" in self.fails_at:
            raise RuntimeError("the recording was invalidated")
        self.books.stop_recording(0, self.pool)
        self.gives_back = True
        if "end" in self.fails_at:
            self.fails_at.append("begin to end")
            raise RuntimeError("there is no memory to make the graph")
        self.books.generator_is_recorded = False

    def __del__(self) -> None:
        if self.gives_back:
            self.books.release(0, self.pool)


@pytest.fixture
def books(monkeypatch: pytest.MonkeyPatch) -> Books:
    books = Books()

    def set_state(state: object) -> None:
        books.generator_is_recorded = False

    generator = SimpleNamespace(graphsafe_set_state=set_state, graphsafe_get_state=object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: BooksGraph(books))
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", books.make_handle)
    monkeypatch.setattr(torch.cuda, "default_generators", [generator])
    monkeypatch.setattr(torch, "Generator", lambda device: generator)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", books.stop_recording, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_releasePool", books.release, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", books.clear_work_spaces, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return books


def fail(graph: Graph, where: str) -> None:
    """Let a recording fail at its end, in torch, or before that, in Python, while torch's side of it is healthy."""
    if where != "healthy":
        graph._graph.fails_at.append(where)  # type: ignore[attr-defined]
        with pytest.raises(RuntimeError, match=r"recording|memory"):
            graph.end()
    graph.abandon()


@pytest.mark.parametrize("where", ["healthy", "begin to end", "end"])
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
        books.multiply()
        fail(graph, where)
        assert not books.generator_is_recorded
        assert not books.recorded
        assert books.work_space is None
    del graph
    assert sum(books.users.values()) == others

    graph = recorder.make_graph()
    graph.begin()
    graph.end()
    assert not books.generator_is_recorded
    assert not books.recorded


def test_a_graph_may_be_abandoned_at_any_time(books: Books) -> None:
    """Abandon graphs before they begin, where they cannot begin, and after they have ended; then record another."""
    recorder = CudaRecorder(torch.device("cuda", 0))
    recorder.make_graph().abandon()

    dead = recorder.make_graph()
    books.users[books.handles] = 0
    with pytest.raises(RuntimeError, match="use_count"):
        dead.begin()
    dead.abandon()
    assert not books.generator_is_recorded

    thrown_away = recorder.make_graph()
    thrown_away.begin()
    thrown_away.end()
    thrown_away.abandon()
    thrown_away.abandon()
    del thrown_away

    graph = recorder.make_graph()
    graph.begin()
    graph.end()
    assert sum(books.users.values()) == 1


def test_a_recorder_that_forgot_takes_other_memory(books: Books) -> None:
    """Throw a good graph away, as a step is that draws something else each time."""
    recorder = CudaRecorder(torch.device("cuda", 0))
    for _ in range(2):
        graph = recorder.make_graph()
        graph.begin()
        graph.end()
        del graph
        recorder.forget()
    assert books.handles == 2


def test_a_graph_s_work_space_is_in_its_own_memory(books: Books) -> None:
    """Multiply before, within, between and after graphs: no graph writes where others, or eager work, free memory."""
    recorder = CudaRecorder(torch.device("cuda", 0))
    other = CudaRecorder(torch.device("cuda", 0))
    graphs = []
    for each in (recorder, other, recorder):
        books.multiply()
        graphs.append(each.make_graph())
        graphs[-1].begin()
        books.multiply()
        graphs[-1].end()
        assert books.work_space is None
    assert books.written == {1: {1}, 2: {2}}


class BooksStream:
    """A stream that cannot be waited for while it is recorded."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.waits = 0

    def wait_stream(self, other: BooksStream) -> None:
        if self.books.recorded:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.waits += 1


@pytest.fixture
def stream(books: Books, monkeypatch: pytest.MonkeyPatch) -> BooksStream:
    """Let all streams be one."""
    made = BooksStream(books)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: made)
    monkeypatch.setattr(torch.cuda, "stream", lambda given: contextlib.nullcontext())
    return made


@pytest.mark.parametrize("ends", [True, False])
def test_an_error_in_a_recording_is_the_one_that_is_raised(ends: bool, books: Books, stream: BooksStream) -> None:
    """Leave a recording in the middle: its stream cannot be waited for, and what says so hides nothing."""
    recorder = CudaRecorder(torch.device("cuda", 0))

    def fail_while_recorded() -> None:
        with recorder.record():
            graph = recorder.make_graph()
            graph.begin()
            if ends:
                graph.end()
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        fail_while_recorded()
    assert stream.waits == (2 if ends else 1)


def test_no_garbage_is_collected_while_graphs_are_recorded(books: Books, stream: BooksStream) -> None:
    """Graphs that lie in cycles are destroyed whenever the collector runs."""
    recorder = CudaRecorder(torch.device("cuda", 0))
    assert gc.isenabled()
    with recorder.record():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="a part failed"), recorder.record():
        raise ValueError("a part failed")
    assert gc.isenabled()

    gc.disable()
    try:
        with recorder.record():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
