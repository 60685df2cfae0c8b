"""Measure what a hard switch changes at the moment when it happens, for any experiment.

    python scripts/measure_switch.py experiments/r3gan_mnist.gin --bind 'architectures.R3GAN.inherit_images = False'

At the end of each stage copies of both networks grow by a hard switch. Printed are, over 256 latents and the first 256
reals:

* G: the root mean square of the difference between the images after and before, relative to that of the images before.
  The images before are enlarged by `train.resampling`, as the new block enlarges its features.
* D: the root mean square of the change of the scores of reals, in standard deviations of the scores before. D reads the
  large reals after, and before (a) the same ones, made smaller by `train.resampling`; (b) the small reals of the data.
"""

from __future__ import annotations

import argparse
import copy
import tempfile

import torch
from torch import Tensor

import pggan_kit
from pggan_kit import Run, Stage, TrainState, hookimpl, images_from_uint8

COUNT = 256


class SwitchProbe:
    """A hook that measures the next hard switch at each stage's end."""

    @hookimpl
    @torch.no_grad()
    def after_stage(self, run: Run, stage: Stage, state: TrainState) -> None:
        """Print what growing to the next stage changes."""
        if stage.index + 1 == len(run.schedule.stages):
            return

        # The networks as they are, and reals of both sizes.
        new = run.schedule.stages[stage.index + 1]
        generator = copy.deepcopy(state.generator).eval()
        discriminator = copy.deepcopy(state.discriminator).eval()
        latents = run.fixed_latents(COUNT).to(run.device)
        small, labels = read_reals(run, stage)
        large, _ = read_reals(run, new)
        pair = run.experiment.resampling
        up = pair.up(new.image_channels, new.factor).to(run.device)
        down = pair.down(new.image_channels, new.factor).to(run.device)

        # Before and after they grow.
        images = up(generator(latents, labels))
        scores = discriminator(down(large), labels).score
        small_scores = discriminator(small, labels).score
        for net in (generator, discriminator):
            net.grow(new, False)
            net.to(run.device).eval()
        new_images = generator(latents, labels)
        new_scores = discriminator(large, labels).score

        # Differences in units of what was there before.
        jumps = {
            "G": rms(new_images - images) / rms(images),
            "D (a)": rms(new_scores - scores) / scores.std(),
            "D (b)": rms(new_scores - small_scores) / small_scores.std(),
        }
        line = ", ".join(f"{name} {float(jump):.2g}" for name, jump in jumps.items())
        print(f"{stage.size} -> {new.size} at {state.images} images: {line}")


def read_reals(run: Run, stage: Stage) -> tuple[Tensor, Tensor | None]:
    """Return the first reals of the data at a stage's size, (N, C, h, w), and their labels."""
    assert run.data is not None
    pixels, labels = run.data.level((stage.height, stage.width))
    images = images_from_uint8(torch.tensor(pixels[:COUNT]), torch.float32)
    if labels is None or not run.experiment.architecture.conditional:
        return images.to(run.device), None
    return images.to(run.device), torch.tensor(labels[:COUNT]).to(run.device)


def rms(x: Tensor) -> Tensor:
    """Return the root mean square, 0-dim."""
    return x.square().mean().sqrt()


def main() -> None:
    """Train the experiment, and print the changes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="gin file of the experiment")
    parser.add_argument("--bind", action="append", default=[], help="a binding; may be given several times")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pggan_kit.train(arguments.config, arguments.bind, run_dir=f"{folder}/run", plugins=[SwitchProbe()])


if __name__ == "__main__":
    main()
