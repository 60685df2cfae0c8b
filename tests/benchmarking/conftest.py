"""What tests of measurements share."""

from __future__ import annotations

import contextlib

import pytest


@pytest.fixture
def no_fake_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are counted on real tensors, which take less time than fake ones in tiny networks.

    `test_fake_tensors_count_what_real_ones_do` holds that both count the same.
    """
    monkeypatch.setattr("pggan_kit.benchmarking.flops.FakeTensorMode", lambda **options: contextlib.nullcontext())
