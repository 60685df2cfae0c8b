"""The suite of augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pggan_kit.testing.base import TrainedSuite
from pggan_kit.testing.support import noise, require


class AugmentationSuite(TrainedSuite):
    """What D sees of reals and fakes alike. `make` should return one that acts on most images.

    Attributes:
        sizes: (height, width) of images.
        image_channels: gray and colour.
        draws: how many seeds are tried where one draw may do nothing.
    """

    kind = "augmentations"
    sizes: Sequence[tuple[int, int]] = ((4, 4), (7, 7), (8, 12))
    image_channels: Sequence[int] = (1, 3)
    draws = 8

    def chosen(self, part: Any) -> dict[str, Any]:
        """As `train.augmentation`."""
        return {"augmentation": part}

    def test_shapes(self) -> None:
        """Images come back in their shape and type, finite, at every size, channel count and batch size."""
        part = self.make()
        for height, width in self.sizes:
            for channels in self.image_channels:
                for count in (1, 2, 5):
                    images = noise(count, channels, height, width).clamp(-1, 1)
                    given = images.clone()
                    found = part(images)
                    where = f"of {count} images {height}x{width} with {channels} channels"
                    require(
                        found.shape == given.shape and found.dtype == given.dtype,
                        f"the augmentation {where} returns {found.dtype} {tuple(found.shape)}",
                    )
                    require(bool(found.isfinite().all()), f"the augmentation {where} is not finite")
                    require(torch.equal(images, given), f"the augmentation {where} changes its input in place")

    def test_differentiable(self) -> None:
        """Gradients flow back to the images, and can be differentiated again: G and penalties learn through it."""
        part, flows = self.make(), False
        for seed in range(self.draws):
            images = noise(4, 3, 8, 8).requires_grad_(True)
            torch.manual_seed(seed)
            output = part(images)
            require(
                output.requires_grad, "the augmentation is not differentiable: its output is cut off from its input"
            )
            (grad,) = torch.autograd.grad(output.square().sum(), images, create_graph=True)
            require(bool(grad.isfinite().all()), "the gradient through the augmentation is not finite")
            require(grad.requires_grad, "the gradient through the augmentation cannot be differentiated again")
            flows = flows or bool((grad != 0).any())
        require(flows, "the gradient through the augmentation is 0 throughout")

    def test_random_by_torch_alone(self) -> None:
        """The same torch seed and images give the same result, whatever was augmented before: reals and fakes alike."""
        part = self.make()
        images, others = noise(4, 3, 8, 8), noise(4, 3, 8, 8, seed=1)
        results = []
        for _ in range(2):
            torch.manual_seed(3)
            results.append(part(images))
            part(others)
        require(
            torch.equal(*results),
            "the same images under the same torch seed are augmented in two ways: what came before, or another source "
            "of random numbers, has a say; reals and fakes would not be treated alike",
        )

    def test_gradcheck(self) -> None:
        """In float64 the gradient to the images equals finite differences."""
        part = self.make()

        def fixed(images: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(0)
            result: torch.Tensor = part(images)
            return result

        images = noise(2, 3, 4, 4, dtype=torch.float64).requires_grad_(True)
        try:
            torch.autograd.gradcheck(fixed, (images,))
        except Exception as error:
            raise AssertionError(f"the gradient through the augmentation is not its derivative: {error}") from error
