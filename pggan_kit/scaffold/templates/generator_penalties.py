"""A generator penalty of your own: here the squared gradient of G's images by its latents."""

from torch import Tensor

from pggan_kit import Component, Fakes, Varying, at_least_float32, check_at_least, generator_gradients, hookimpl


class Mine:
    """The mean over samples of |grad sum(G(z) * y)|^2 / (h * w), with noise y from N(0, 1): G should be smooth.

    Args:
        weight: Factor by which the core multiplies it, at least 0; may be per stage or a curve.
        every: Number of G's updates from one that adds the term, multiplied by `every`, to the next. At least 1.

    Raises:
        ValueError: `weight` is below 0, or `every` below 1.
    """

    needs_noise = True

    def __init__(self, weight: Varying[float] = 0.1, every: int = 4) -> None:
        check_at_least("weight", weight, 0)
        check_at_least("every", every, 1)
        self.weight = weight
        self.every = every

    def __call__(self, fakes: Fakes) -> Tensor:
        """Return the unweighted 0-dim term."""
        assert fakes.noise is not None  # since `needs_noise` is set
        height, width = fakes.images.shape[-2:]
        projected = (fakes.images * fakes.noise).sum()
        gradients = at_least_float32(generator_gradients(projected, fakes.latents))
        return gradients.square().sum(1).mean() / (height * width)


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@generator_penalties.Mine()`."""
    return [Component("generator_penalties", "Mine", Mine)]
