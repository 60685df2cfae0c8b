"""Truncated styles: of a loaded generator, on the command line, and of networks that have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import TINY
from torch import Tensor

from pggan_kit import ConfigError, SettingError, load_generator
from pggan_kit.api.train import train as train_file
from pggan_kit.pictures.grid import to_uint8
from pggan_kit.runs.generators import TrainedGenerator
from pggan_kit.system.seeding import torch_generator

LINES = (
    "schedule.sizes = (4, 8)",
    "architectures.StyleGAN2.style_size = 6",
    "architectures.StyleGAN2.mapping_layers = 2",
    "architectures.StyleGAN2.noise = False",
)


@pytest.fixture
def styled(tiny: Callable[..., str], stub: str) -> TrainedGenerator:
    """The generator of a run in `run`."""
    train_file(tiny(*LINES, base=TINY.replace("PGGAN", "StyleGAN2")), plugins=[stub], run_dir="run")
    return load_generator("run")


def test_styles_are_pulled_towards_their_mean(styled: TrainedGenerator) -> None:
    """Against the formula, with the mean over 10,000 latents in one batch and in float64; 1 changes nothing, at 0 all
    images are one."""
    latents = torch.randn(5, styled.latent_size)
    seeded = torch_generator(0, "truncation")
    centre = styled.generator.double().map_latents(torch.randn(10_000, styled.latent_size, generator=seeded).double())
    own = styled.generator.map_latents(latents.double())
    assert centre is not None and own is not None
    styles = centre.mean(0) + 0.3 * (own - centre.mean(0))
    wanted = styled.generator.synthesise(latents.double(), styles=styles).images

    single = load_generator("run")
    torch.testing.assert_close(single(latents, truncation=0.3), wanted.float(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(single(latents, truncation=1.0), single(latents), rtol=1e-4, atol=1e-5)
    one = single(latents, truncation=0.0)
    assert torch.equal(one, one[:1].expand_as(one))
    assert not torch.allclose(single(latents), single(latents, truncation=0.3))


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_a_generator_in_another_precision_truncates(styled: TrainedGenerator, kind: torch.dtype) -> None:
    latents = torch.randn(3, styled.latent_size)
    wanted = styled(latents, truncation=0.5)
    # Its own mean, or one that was measured before.
    for generator in (load_generator("run"), styled):
        images = generator.to(kind)(latents.to(kind), truncation=0.5)
        torch.testing.assert_close(images.float(), wanted, rtol=0, atol=1e-4 if kind == torch.float64 else 0.1)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_a_wrong_share_is_refused(styled: TrainedGenerator, wrong: float, cli: Callable[..., Result]) -> None:
    with pytest.raises(SettingError, match="truncation must be"):
        styled(torch.zeros(1, styled.latent_size), truncation=wrong)
    assert cli("sample", "run", "--out", "a.npz", "--truncation", wrong).exit_code == 2


def test_sample_truncates(styled: TrainedGenerator, cli: Callable[..., Result]) -> None:
    latents = torch.randn(3, styled.latent_size, generator=torch_generator(5, "sample"))

    def draw(*words: Any) -> np.ndarray:
        result = cli("sample", "run", "--count", "3", "--seed", "5", "--out", "a.npz", *words)
        assert result.exit_code == 0, result.output
        images: np.ndarray = np.load("a.npz")["images"]
        return images

    np.testing.assert_array_equal(draw("--truncation", "0.5"), to_uint8(styled(latents, truncation=0.5)))
    np.testing.assert_array_equal(draw(), to_uint8(styled(latents)))


def test_labels_count_alike_in_the_mean() -> None:
    """A conditional network's mean is over all classes, whatever classes are drawn."""

    class Net(torch.nn.Module):
        latent_size = 1

        def __init__(self) -> None:
            super().__init__()
            self.bridge = None

        def map_latents(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
            assert labels is not None
            return labels.double().view(-1, 1, 1)

        def synthesise(self, latents: Tensor, labels: Any, alpha: Any, styles: Tensor) -> Any:
            return type("Synthesis", (), {"images": styles})()

    net: Any = Net()
    generator = TrainedGenerator(net, 1.0, classes=4, images=0)
    images = generator(torch.zeros(2, 1), torch.tensor([3, 0]), truncation=0.5)
    torch.testing.assert_close(images.flatten(), torch.tensor([2.25, 0.75]).double())


def test_without_styles_latents_are_pulled_towards_zero(train: Any, cli: Callable[..., Result]) -> None:
    train("architectures.PGGAN.latent_norm = False", run_dir="run")
    generator = load_generator("run")
    latents = torch.randn(3, generator.latent_size, generator=torch_generator(5, "sample"))
    torch.testing.assert_close(generator(latents, truncation=0.3), generator(0.3 * latents))
    result = cli("sample", "run", "--count", "3", "--seed", "5", "--out", "a.npz", "--truncation", "0.3")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(np.load("a.npz")["images"], to_uint8(generator(0.3 * latents)))


def test_networks_that_normalise_latents_refuse(train: Any, cli: Callable[..., Result]) -> None:
    """Their images would be the same at any share."""
    train(run_dir="run")
    generator = load_generator("run")
    with pytest.raises(ConfigError, match="the generator of PGGAN has no styles and normalises its latents"):
        generator(torch.ones(1, generator.latent_size), truncation=0.7)
    result = cli("sample", "run", "--out", "a.npz", "--truncation", "0.7")
    assert result.exit_code == 2 and "has no styles" in " ".join(result.stderr.split())
