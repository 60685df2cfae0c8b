"""A penalty of your own: here the squared gradient of D at mixtures of reals and fakes."""

from torch import Tensor

from pggan_kit import Component, Critic, Scores, Varying, check_at_least, hookimpl, image_gradients


class Mine:
    """The mean over samples of |grad D(x)|^2 at x = mix * real + (1 - mix) * fake.

    Args:
        weight: Factor by which the update multiplies it, at least 0; may be per stage or a curve.
        every: Number of D's updates from one that adds the term, multiplied by `every`, to the next. At least 1.

    Raises:
        ValueError: `weight` is below 0, or `every` below 1.
    """

    def __init__(self, weight: Varying[float] = 1.0, every: int = 1) -> None:
        check_at_least("weight", weight, 0)
        check_at_least("every", every, 1)
        self.weight = weight
        self.every = every

    def __call__(
        self, critic: Critic, real: Tensor, fake: Tensor, real_scores: Scores, fake_scores: Scores, mix: Tensor
    ) -> Tensor:
        """Return the unweighted 0-dim term, from images (N, C, h, w) and numbers `mix` (N,), uniform in [0, 1)."""
        share = mix.view(-1, 1, 1, 1)
        gradients = image_gradients(critic, share * real + (1 - share) * fake)
        return gradients.square().sum((1, 2, 3)).mean()


@hookimpl
def components() -> list[Component]:
    """Return what configs may name: `@penalties.Mine()`."""
    return [Component("penalties", "Mine", Mine)]
