"""`interpolate`: frames along a loop, the same latents at its keys, and the refusal of wrong settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image, ImageSequence

from pggan_kit import SettingError, load_generator
from pggan_kit.api.interpolate import interpolate, iterate_frames
from pggan_kit.api.sample import draw_pictures
from pggan_kit.pictures import PictureSettings, tile

Cli = Callable[..., Result]


def test_a_loop_is_drawn(train: Any, cli: Cli, refused: Callable[..., str]) -> None:
    train(
        "schedule.sizes = (4, 8)",
        "datasets.Stub.classes = 3",
        "architectures.PGGAN.conditioning = 'projection'",
        run_dir="run",
    )
    generator = load_generator("run")
    keys = torch.randn(3, 2, generator.latent_size)
    frames = list(iterate_frames(generator, keys, 5, [2, 0]))
    assert len(frames) == 15
    for key in range(3):
        images = draw_pictures(generator, keys[key], torch.tensor([2, 0]))
        np.testing.assert_allclose(frames[5 * key].astype(int), tile(images, 2, 14).astype(int), atol=1)

    # No step, that back to the first frame among them, is much larger than the others.
    steps = [np.abs(a.astype(float) - b).mean() for a, b in zip(frames, [*frames[1:], frames[0]], strict=True)]
    assert 0 < max(steps) < 4 * np.mean(steps)

    words = ("--keys", 3, "--steps", 2, "--count", 2, "--class", 1)
    for name in ("a/loop.gif", "loop.webp"):
        result = cli("interpolate", "run", "--out", name, *words)
        assert result.exit_code == 0, result.output
        with Image.open(name) as picture:
            assert len(list(ImageSequence.Iterator(picture))) == 6

    # Within a fade
    fading = ("--checkpoint", "fade", "--stage", "1", "--alpha", 0)
    assert cli("interpolate", "run", "--out", "old.gif", *words, *fading).exit_code == 0
    assert cli("interpolate", "run", "--out", "new.gif", *words, *fading[:-1], 1).exit_code == 0
    with open("old.gif", "rb") as old, open("new.gif", "rb") as new:
        assert old.read() != new.read()

    refused(cli("interpolate", "run", "--out", "a.avi"), r"--out a\.avi: name a \.gif, \.webp or \.mp4 file")
    refused(cli("interpolate", "run", "--out", "run/run.json"), r"would replace what the run")
    for wrong in ("--keys 1", "--steps 0", "--fps 0", "--fps 0.001", "--fps nan", "--fps 51", "--count 0", "--seed -1"):
        result = cli("interpolate", "run", "--out", "b.gif", *wrong.split())
        assert result.exit_code == 2 and wrong.split()[0] in result.stderr, wrong


@pytest.mark.parametrize(("name", "value"), [("keys", 1), ("steps", 0), ("fps", 0.001), ("fps", 51), ("count", 0)])
def test_wrong_settings_are_refused(name: str, value: Any, tmp_path: Any) -> None:
    with pytest.raises(SettingError, match=f"{name} must be"):
        interpolate(tmp_path, tmp_path / "a.gif", **{name: value})


def test_noise_does_not_flicker() -> None:
    """Noise within the network is the same in all frames."""

    class Noisy(torch.nn.Module):
        latent_size = 4
        images = 0
        classes = 0
        pictures = PictureSettings()

        def forward(self, latents: torch.Tensor, *_: Any) -> torch.Tensor:
            return torch.rand(len(latents), 1, 4, 4)

    generator: Any = Noisy()
    before = torch.get_rng_state()
    frames = list(iterate_frames(generator, torch.randn(2, 1, 4, generator=torch.Generator().manual_seed(0)), 2))
    assert all((frame == frames[0]).all() for frame in frames) and len(np.unique(frames[0])) > 8
    assert torch.equal(torch.get_rng_state(), before)
