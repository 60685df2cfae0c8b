"""Test what drawing images leaves of a network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pggan_kit.runs.generators import draw_images


class Broken(nn.Module):
    """A generator for which there is no memory."""

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        assert not self.training
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("training", [False, True])
def test_a_draw_that_fails_leaves_the_mode_of_the_network(training: bool) -> None:
    """Training goes on after an observer has failed: it must not go on in inference mode."""
    net = Broken().train(training)
    with pytest.raises(torch.OutOfMemoryError):
        draw_images(net, torch.zeros(2, 4), None, None, 0, torch.device("cpu"))
    assert net.training is training
