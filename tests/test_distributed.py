"""Two processes on one machine, as torchrun starts them: equal replicas, and the numbers of one process.

Run as a script, this file is what each of the processes executes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pggan_kit import distributed
from pggan_kit.testing.base import summary, train_tiny
from pggan_kit.testing.support import noise
from pggan_plugins.architectures import PGGAN
from pggan_plugins.losses import WGANGP
from pggan_plugins.optimizers import Adam
from pggan_plugins.penalties import Drift, GradientPenalty
from pggan_plugins.updates import Alternating

SECONDS = 120


def chosen() -> dict[str, Any]:
    """The paper's parts, without its minibatch statistic: that one sees a rank's samples alone."""
    return {
        "architecture": PGGAN(channels=4, minibatch="none"),
        "loss": WGANGP([GradientPenalty(), Drift()]),
        "update": Alternating(),
        "generator_optimizer": Adam(),
        "discriminator_optimizer": Adam(),
    }


def trained(folder: Path) -> dict[str, Any]:
    """Two stages and a fade in float64, in which two orders of summation agree closely enough for Adam."""
    torch.set_default_dtype(torch.float64)
    try:
        return summary(train_tiny(object(), "nobody", folder, chosen()))
    finally:
        torch.set_default_dtype(torch.float32)


def rank_main(folder: Path) -> None:
    """What each process does: reports by rank, for the tests to compare."""
    distributed.start()
    rank, world = distributed.rank(), distributed.world_size()
    params = [nn.Parameter(torch.zeros(*shape)) for shape in ((3, 2), (5,), (1,))]
    for index, param in enumerate(params):
        param.grad = noise(*param.shape, seed=10 * rank + index) / 3
    params.append(nn.Parameter(torch.zeros(2)))
    distributed.average_gradients(params)
    shared: list[Any] = [f"from {rank}", rank]
    distributed.share(shared)
    distributed.barrier()
    own = folder / f"run{rank}"
    own.mkdir()
    report = {
        "rank": (rank, world),
        "gradients": [param.grad for param in params],
        "shared": shared,
        "trained": trained(own),
        "files": sorted(path.name for path in own.iterdir()),
    }
    torch.save(report, folder / f"report{rank}.pt")
    torch.distributed.destroy_process_group()


def free_port() -> int:
    """One that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        ends = [process.communicate(timeout=SECONDS)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(ends)
    return [torch.load(folder / f"report{rank}.pt", weights_only=True) for rank in range(2)]


def test_ranks_find_each_other(reports: list[dict[str, Any]]) -> None:
    assert [tuple(report["rank"]) for report in reports] == [(0, 2), (1, 2)]


def test_gradients_become_the_mean_with_the_same_bits(reports: list[dict[str, Any]]) -> None:
    for index, shape in enumerate(((3, 2), (5,), (1,))):
        both = [report["gradients"][index] for report in reports]
        assert torch.equal(*both)
        mean = sum(noise(*shape, seed=10 * rank + index).double() / 3 for rank in range(2)) / 2
        torch.testing.assert_close(both[0].double(), mean, rtol=1e-6, atol=1e-7)
    assert [report["gradients"][3] for report in reports] == [None, None], "what has no gradient still has none"


def test_rank_0_shares_what_it_has(reports: list[dict[str, Any]]) -> None:
    assert [report["shared"] for report in reports] == [["from 0", 0], ["from 0", 0]]


def test_replicas_stay_equal_through_growth_and_fade(reports: list[dict[str, Any]]) -> None:
    first, second = (report["trained"] for report in reports)
    assert first["images"] == second["images"] and first["starts"] == second["starts"]
    for net in ("generator", "discriminator", "ema"):
        for name, value in first[net].items():
            assert torch.equal(value, second[net][name]), f"{net} {name}"


def test_two_ranks_train_as_one_with_the_same_global_batch(reports: list[dict[str, Any]], tmp_path: Path) -> None:
    alone = trained(tmp_path)
    assert alone["images"] == reports[0]["trained"]["images"]
    for net in ("generator", "discriminator", "ema"):
        for name, value in alone[net].items():
            assert value.dtype == torch.float64
            torch.testing.assert_close(reports[0]["trained"][net][name], value, rtol=1e-7, atol=1e-9)


def test_rank_0_alone_writes(reports: list[dict[str, Any]]) -> None:
    assert reports[0]["files"] == ["checkpoints", "stats.jsonl"]
    assert reports[1]["files"] == []


def test_one_process_needs_no_group() -> None:
    param = nn.Parameter(torch.zeros(2))
    param.grad = torch.ones(2)
    distributed.average_gradients([param])
    values = [1]
    distributed.share(values)
    distributed.barrier()
    assert (distributed.rank(), distributed.world_size(), values, param.grad.tolist()) == (0, 1, [1], [1.0, 1.0])


if __name__ == "__main__":
    rank_main(Path(sys.argv[1]))
