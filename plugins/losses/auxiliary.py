"""The term of an auxiliary classifier, on top of any loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from pggan_kit import ConfigError, Loss, Penalty, Scores, check_at_least


class AuxiliaryClassifier:
    """A loss, and beside it the cross-entropy of D's class logits: D learns the classes of reals, and G to make images
    that D puts into the class asked for (Odena et al. 2017).

    Needs an architecture with `conditioning = 'auxiliary'`.

    Args:
        loss: the adversarial loss. In configs the default is `losses.Hinge`.
        weight: of D's cross-entropy, at least 0.
        generator_weight: of G's, at least 0. None: as `weight`.
        classify_fakes: whether D learns the classes of fakes, too, as Odena et al. have it.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self, loss: Loss, weight: float = 1.0, generator_weight: float | None = None, classify_fakes: bool = False
    ) -> None:
        for name, value in (("weight", weight), ("generator_weight", generator_weight)):
            check_at_least(name, value, 0)
        self.loss = loss
        self.weight = weight
        self.generator_weight = weight if generator_weight is None else generator_weight
        self.classify_fakes = classify_fakes

    @property
    def needs_real(self) -> bool:
        """The adversarial loss's."""
        return self.loss.needs_real

    @property
    def penalties(self) -> Sequence[Penalty]:
        """The adversarial loss's."""
        return self.loss.penalties

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """The loss's terms and `class`: `weight` times the reals' cross-entropy, plus the fakes' if they count.

        Raises:
            ConfigError: D gives no class logits, or there are no labels.
        """
        term = classification(real)
        if self.classify_fakes:
            term = term + classification(fake)
        return {**self.loss.discriminator(real, fake), "class": self.weight * term}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """The loss's terms and `class`: `generator_weight` times the fakes' cross-entropy.

        Raises:
            ConfigError: D gives no class logits, or there are no labels.
        """
        return {**self.loss.generator(fake, real), "class": self.generator_weight * classification(fake)}


def classification(scores: Scores) -> Tensor:
    """The mean cross-entropy of the class logits (N, K) and the labels (N,), 0-dim, in nats.

    Raises:
        ConfigError: one of the two is missing.
    """
    if scores.class_logits is None or scores.labels is None:
        raise ConfigError(
            "losses.AuxiliaryClassifier needs a data set with labels and an architecture whose discriminator "
            "classifies: set its conditioning = 'auxiliary', e.g. architectures.PGGAN.conditioning"
        )
    return cross_entropy(scores.class_logits, scores.labels)
