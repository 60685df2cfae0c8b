"""Test what is measured of operations alone: on a GPU a burst of short ones is one graph."""

from __future__ import annotations

import pytest
import torch

from pggan_kit.benchmarking import ceiling
from pggan_kit.testing.replayed_graphs import ReplayRecorder


def test_a_burst_of_a_gpu_is_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the products that are really computed: in a replay, as many as there are calls in a burst."""
    recorder = ReplayRecorder()
    monkeypatch.setattr(ceiling, "choose_recorder", lambda device: recorder)
    monkeypatch.setattr(ceiling, "MOST_CALLS", 5)
    total = torch.zeros(())
    ceiling._measure_best(lambda: total.add_(1.0), torch.device("cpu"))
    (graph,) = recorder.graphs
    assert len(graph.notes) == 5
    assert recorder.replays == ceiling.ROUNDS
    # Two calls that tell the length of a burst, and the bursts.
    assert float(total) == 2 + 5 * ceiling.ROUNDS
