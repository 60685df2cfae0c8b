"""Random numbers that a block draws for itself."""

import pytest
import torch

from pggan_kit.system.seeding import fork_random_numbers, seed_torch


@pytest.mark.parametrize("has_gpu", [False, True])
def test_seeding_gives_the_numbers_of_torchs_own_and_seeds_gpus_where_there_are_any(
    has_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(3)
    on_gpus: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", on_gpus.append)
    seed_torch(3)
    assert torch.equal(torch.rand(3), wanted)
    assert on_gpus == [3] * has_gpu


def test_a_fork_draws_from_its_seed_and_leaves_no_trace() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(2)
    seeded = torch.rand(3)
    torch.manual_seed(1)
    with fork_random_numbers(torch.device("cpu"), 2):
        assert torch.equal(torch.rand(3), seeded)
    assert torch.equal(torch.rand(3), wanted)


def test_a_fork_without_a_seed_goes_on_and_an_error_puts_the_numbers_back() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)

    def fail() -> None:
        with fork_random_numbers():
            assert torch.equal(torch.rand(3), wanted)
            raise RuntimeError

    torch.manual_seed(1)
    with pytest.raises(RuntimeError):
        fail()
    assert torch.equal(torch.rand(3), wanted)
