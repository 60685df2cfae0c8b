"""Test what drawing images leaves of a network, and what a generator refuses to draw from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pggan_kit.errors import RunError, SettingError
from pggan_kit.runs.generators import TrainedGenerator, draw_images


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


class Conditional(nn.Module):
    """A generator of one pixel, whose value is the label."""

    latent_size = 3
    bridge = None

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, latents: Tensor, labels: Tensor, alpha: Tensor | None) -> Tensor:
        return labels.double().view(-1, 1, 1, 1)


LATENTS = torch.zeros(2, 3)
WRONG_INPUTS: dict[str, tuple[Any, Any, str]] = {
    "width": (
        torch.zeros(2, 4),
        torch.tensor([0, 1]),
        r"^latents must be a tensor \(N, 3\) of floats, and are \(2, 4\)",
    ),
    "one latent": (torch.zeros(3), torch.tensor([0]), r"^latents must be .* and are \(3,\) of torch\.float32"),
    "integers": (torch.zeros(2, 3, dtype=torch.int64), torch.tensor([0, 1]), r"^latents must be .* of torch\.int64"),
    "a list": ([[0.0] * 3], torch.tensor([0]), r"^latents must be a tensor \(N, 3\), not a list"),
    "no labels": (LATENTS, None, r"^labels must be a tensor \(2,\) of int64 with classes from 0 to 9, and are missing"),
    "a list of labels": (LATENTS, [1, 2], r"^labels must be a tensor \(2,\) of int64 .*, and are a list"),
    "too few": (LATENTS, torch.tensor([1]), r"^labels must be .* one for each latent, and are \(1,\) of torch\.int64"),
    "floats": (LATENTS, torch.tensor([1.0, 2.0]), r"^labels must be .* and are \(2,\) of torch\.float32"),
    "no such class": (LATENTS, torch.tensor([2, 11]), r"^labels must be from 0 to 9, and one is 11"),
    "float64": (
        LATENTS.double(),
        torch.tensor([0, 1]),
        r"^latents must be of torch\.float32, .* and are of torch\.float64",
    ),
    "below 0": (LATENTS, torch.tensor([-1, 0]), r"^labels must be from 0 to 9, and one is -1"),
}


@pytest.mark.parametrize("given", WRONG_INPUTS)
def test_wrong_latents_and_labels_are_refused_in_the_words_of_the_caller(given: str) -> None:
    net: Any = Conditional()
    generator = TrainedGenerator(net, 1.0, classes=10, images=0)
    latents, labels, message = WRONG_INPUTS[given]
    with pytest.raises(SettingError, match=message):
        generator(latents, labels)


class Fading(Conditional):
    """A generator of one pixel, which has an old path: its value is alpha."""

    bridge = nn.Identity()

    def forward(self, latents: Tensor, labels: Tensor | None, alpha: Tensor | None) -> Tensor:
        assert alpha is not None
        return alpha.expand(len(latents), 1, 1, 1)


def test_alpha_is_a_number_or_a_tensor_of_one_between_0_and_1() -> None:
    fading: Any = Fading()
    generator = TrainedGenerator(fading, 0.25, classes=0, images=0)
    assert generator(LATENTS).tolist() == generator(LATENTS, alpha=0.25).tolist()
    for alpha in (0.5, torch.tensor(0.5)):
        assert generator(LATENTS, alpha=alpha).flatten().tolist() == [0.5, 0.5]
    wrong: list[Any] = [5.0, -0.1, math.nan, "x", torch.tensor(5.0), torch.tensor([0.5]), torch.tensor(1), True]
    for alpha in wrong:
        with pytest.raises(SettingError, match=r"^alpha must be "):
            generator(LATENTS, alpha=alpha)


def test_alpha_labels_and_mixing_that_a_generator_cannot_take() -> None:
    plain: Any = Conditional()
    generator = TrainedGenerator(plain, 1.0, classes=0, images=7)
    with pytest.raises(RunError, match=r"^alpha: the generator at images 7 has no old path to fade from$"):
        generator(LATENTS, alpha=0.5)
    with pytest.raises(SettingError, match=r"^labels must be left out: the generator is unconditional"):
        generator(LATENTS, torch.tensor([0, 1]))
    mixing: Any = 3
    with pytest.raises(SettingError, match=r"^mixing must be a StyleMixing, not 3"):
        generator(LATENTS, mixing=mixing)


def test_right_labels_are_taken_and_values_on_a_device_are_not_read() -> None:
    net: Any = Conditional()
    generator = TrainedGenerator(net, 1.0, classes=10, images=0)
    assert generator(LATENTS, torch.tensor([9, 0])).flatten().tolist() == [9.0, 0.0]
    # A tensor on `meta` has no values: reading them, as a wait for a GPU would, is an error.
    assert generator(LATENTS.to("meta"), torch.tensor([9, 11]).to("meta")).shape == (2, 1, 1, 1)
