"""Test that the device of a run is the one that is worked on, with a simulated GPU that records what it is asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from pggan_kit import hookimpl
from pggan_kit.benchmarking.timing import time_calls
from pggan_kit.data.device_feed import SideStream
from pggan_kit.errors import TrainingError
from pggan_kit.system.devices import CUBLAS_WORKSPACE, find_device, free_cached_memory, prepare_device
from pggan_kit.system.seeding import seed_step

SECOND = torch.device("cuda", 1)


class SimulatedGPUs:
    """Two GPUs that do nothing.

    Attributes:
        current: Index of the current one.
        calls: What was called, as (name, index of the GPU).
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = 0
        self.calls: list[tuple[str, int]] = []
        gpus = self

        class Stream:
            def __init__(self, device: Any = None) -> None:
                self.index = gpus.find_index(device)
                gpus.calls.append(("stream", self.index))

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                pass

            def record(self, stream: Stream | None = None) -> None:
                gpus.calls.append(("event", gpus.current if stream is None else stream.index))

            def elapsed_time(self, end: Event) -> float:
                return 1000.0

        class Generator:
            def __init__(self, index: int) -> None:
                self.index = index

            def manual_seed(self, seed: int) -> None:
                gpus.calls.append(("seed", self.index))

        # What torch asks the driver for.
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *shape, device=None: ones(*shape))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "set_device", self.set_current)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "current_stream", Stream)
        monkeypatch.setattr(torch.cuda, "default_generators", [Generator(0), Generator(1)])
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: self.calls.append(("empty", self.current)))
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: self.calls.append(("wait", device.index)))

    def set_current(self, device: Any) -> None:
        self.current = self.find_index(device)

    def find_index(self, device: Any) -> int:
        index = self.current if device is None else torch.device(device).index
        assert index is not None
        return index


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedGPUs]:
    matmul = torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32
    yield SimulatedGPUs(monkeypatch)
    torch.backends.cuda.matmul.allow_tf32 = matmul
    torch.backends.cudnn.allow_tf32 = cudnn


def test_all_that_is_asked_of_a_gpu_is_asked_of_the_run_s(gpus: SimulatedGPUs) -> None:
    device = prepare_device("cuda:1", tf32=True)
    assert (device, gpus.current) == (SECOND, 1)
    assert time_calls(lambda: torch.cuda.Event().record(), device) == 1.0
    SideStream(device)
    seed_step(device, 3)
    free_cached_memory(device)
    assert {name for name, _ in gpus.calls} == {"event", "stream", "wait", "seed", "empty"}
    assert {index for _, index in gpus.calls} == {1}, gpus.calls


def test_events_are_recorded_on_the_device_that_is_timed_whatever_the_current_one(gpus: SimulatedGPUs) -> None:
    time_calls(lambda: None, SECOND)
    assert gpus.current == 0
    assert [index for name, index in gpus.calls if name == "event"] == [1, 1]


def test_a_gpu_without_an_index_is_this_process_s(gpus: SimulatedGPUs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cuda") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device("cuda") == SECOND


@pytest.fixture
def algorithms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the algorithms that are used, and the environment."""
    monkeypatch.setenv(CUBLAS_WORKSPACE, "")
    monkeypatch.delenv(CUBLAS_WORKSPACE)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    ("setting", "enabled", "warns"), [("never", False, False), ("warn", True, True), ("always", True, False)]
)
def test_deterministic_kernels_are_for_gpus_and_for_this_run_alone(
    setting: str, enabled: bool, warns: bool, gpus: SimulatedGPUs, algorithms: None
) -> None:
    prepare_device("cpu", False, setting)
    assert not torch.are_deterministic_algorithms_enabled()
    prepare_device("cuda:1", False, setting)
    assert torch.are_deterministic_algorithms_enabled() == enabled
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
    assert (CUBLAS_WORKSPACE in os.environ) == enabled
    prepare_device("cuda:1", False, "never")
    assert not torch.are_deterministic_algorithms_enabled()


class Putting:
    """A plugin with an operation that has no deterministic kernel, not on a CPU either."""

    @hookimpl
    def after_step(self) -> None:
        torch.use_deterministic_algorithms(True)
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))


def test_an_operation_without_a_deterministic_kernel_is_named(train: Callable[..., Any], algorithms: None) -> None:
    message = r"train\.deterministic = 'always': .* no deterministic kernel.*'warn'.*put_ does"
    with pytest.raises(TrainingError, match=message):
        train(plugins=(Putting(),))


def test_a_cpu_has_no_cached_memory_to_free(gpus: SimulatedGPUs) -> None:
    free_cached_memory(torch.device("cpu"))
    assert not gpus.calls
