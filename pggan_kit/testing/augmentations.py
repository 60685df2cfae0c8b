"""Test that augmentations keep their contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pggan_kit.testing.suite import StepSuite
from pggan_kit.testing.support import draw_noise, require, require_sample_by_sample


class AugmentationSuite(StepSuite):
    """Augmentations of all images that D sees, reals and fakes alike; `make` should return one that acts on most.

    Attributes:
        sizes: Sizes (height, width) of images.
        image_channels: Channel counts to try: gray and colour.
        draws: Number of seeds that are tried where one draw may do nothing.
    """

    kind = "augmentations"
    sizes: Sequence[tuple[int, int]] = ((4, 4), (7, 7), (8, 12))
    image_channels: Sequence[int] = (1, 3)
    draws = 8

    def choose_arguments(self, component: Any) -> dict[str, Any]:
        """Return the component as `train.augmentation`."""
        return {"augmentation": component}

    def test_shapes(self) -> None:
        """Require images of the same shape and type, finite, at every size, channel count and batch size."""
        augment = self.make()
        for height, width in self.sizes:
            for channels in self.image_channels:
                for count in (1, 2, 5):
                    _check_output(augment, (count, channels, height, width))

    def test_differentiable(self) -> None:
        """Require gradients to the images that can be differentiated again: G and penalties learn through them."""
        augment = self.make()
        flows = False
        for seed in range(self.draws):
            images = draw_noise(4, 3, 8, 8).requires_grad_(True)
            torch.manual_seed(seed)
            output = augment(images)
            require(
                output.requires_grad, "the augmentation is not differentiable: its output is cut off from its input"
            )

            # One draw may leave all images as they are.
            (grad,) = torch.autograd.grad(output.square().sum(), images, create_graph=True)
            require(bool(grad.isfinite().all()), "the gradient through the augmentation is not finite")
            require(grad.requires_grad, "the gradient through the augmentation cannot be differentiated again")
            flows = flows or bool((grad != 0).any())
        require(flows, "the gradient through the augmentation is 0 throughout")

    def test_random_by_torch_alone(self) -> None:
        """Require the same result from the same torch seed and images, whatever was augmented before."""
        augment = self.make()
        images = draw_noise(4, 3, 8, 8)
        others = draw_noise(4, 3, 8, 8, seed=1)
        results = []

        # The second time, other images were augmented before.
        for _ in range(2):
            torch.manual_seed(3)
            results.append(augment(images))
            augment(others)
        require(
            torch.equal(*results),
            "the same images under the same torch seed are augmented in two ways: earlier images, or another source "
            "of random numbers, have an influence; reals and fakes would not be treated alike",
        )

    def test_samples_stay_apart(self) -> None:
        """Require each image's result to depend on that image alone, under the same torch seed."""
        augment = self.make()
        images = draw_noise(4, max(self.image_channels), 8, 8)
        for seed in range(self.draws):

            def augment_seeded(batch: torch.Tensor, seed: int = seed) -> torch.Tensor:
                torch.manual_seed(seed)
                result: torch.Tensor = augment(batch)
                return result

            require_sample_by_sample(augment_seeded, images, "the augmented image")

    def test_gradcheck(self) -> None:
        """Require the gradient to the images to equal finite differences in float64."""
        augment = self.make()

        def augment_seeded(images: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(0)
            result: torch.Tensor = augment(images)
            return result

        images = draw_noise(2, 3, 4, 4, dtype=torch.float64).requires_grad_(True)
        try:
            torch.autograd.gradcheck(augment_seeded, (images,))
        except Exception as error:
            raise AssertionError(f"the gradient through the augmentation is not its derivative: {error}") from error


def _check_output(augment: Any, shape: tuple[int, int, int, int]) -> None:
    """Check what an augmentation returns for images of a shape, and that it leaves them as they are."""
    count, channels, height, width = shape
    where = f"of {count} images {height}x{width} with {channels} channels"
    images = draw_noise(*shape).clamp(-1, 1)
    before = images.clone()

    output = augment(images)
    require(
        output.shape == before.shape and output.dtype == before.dtype,
        f"the augmentation {where} returns {output.dtype} {tuple(output.shape)}",
    )
    require(bool(output.isfinite().all()), f"the augmentation {where} is not finite")
    require(torch.equal(images, before), f"the augmentation {where} changes its input in place")
