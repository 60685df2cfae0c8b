"""The term of an auxiliary classifier, on top of any loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from pggan_kit import ConfigError, Loss, Penalty, Scores, check_at_least


class AuxiliaryClassifier:
    """An adversarial loss plus the cross-entropy of D's class logits (Odena et al. 2017).

    D learns the classes of reals, and G learns to make images that D assigns to the requested class. This needs an
    architecture with `conditioning = 'auxiliary'`.

    Args:
        loss: The adversarial loss. In configs the default is `losses.Hinge`. None for the classifier's term alone, as a
            part of `losses.Sum`.
        weight: Factor of D's cross-entropy, at least 0.
        generator_weight: Factor of G's cross-entropy, at least 0. None: the same as `weight`.
        classify_fakes: Whether D also learns the classes of fakes, as in Odena et al.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(
        self,
        loss: Loss | None,
        weight: float = 1.0,
        generator_weight: float | None = None,
        classify_fakes: bool = False,
    ) -> None:
        for name, value in (("weight", weight), ("generator_weight", generator_weight)):
            check_at_least(name, value, 0)
        if generator_weight is None:
            generator_weight = weight

        self.loss = loss
        self.weight = weight
        self.generator_weight = generator_weight
        self.classify_fakes = classify_fakes

    @property
    def needs_real(self) -> bool:
        """Whether the adversarial loss needs the scores of reals for G."""
        return self.loss is not None and self.loss.needs_real

    @property
    def penalties(self) -> Sequence[Penalty]:
        """The penalties of the adversarial loss."""
        return self.loss.penalties if self.loss is not None else ()

    def discriminator(self, real: Scores, fake: Scores) -> dict[str, Tensor]:
        """Return the loss's terms and `class`: `weight` times the cross-entropy of reals, and of fakes if they count.

        Raises:
            ConfigError: D gives no class logits, or there are no labels.
        """
        class_loss = compute_class_loss(real)
        if self.classify_fakes:
            class_loss = class_loss + compute_class_loss(fake)
        terms = self.loss.discriminator(real, fake) if self.loss is not None else {}
        return {**terms, "class": self.weight * class_loss}

    def generator(self, fake: Scores, real: Scores | None) -> dict[str, Tensor]:
        """Return the loss's terms and `class`: `generator_weight` times the cross-entropy of fakes.

        Raises:
            ConfigError: D gives no class logits, or there are no labels.
        """
        terms = self.loss.generator(fake, real) if self.loss is not None else {}
        return {**terms, "class": self.generator_weight * compute_class_loss(fake)}


def compute_class_loss(scores: Scores) -> Tensor:
    """Return the mean cross-entropy of the class logits (N, K) and the labels (N,), 0-dim, in nats.

    Raises:
        ConfigError: The class logits or the labels are missing.
    """
    if scores.class_logits is None or scores.labels is None:
        raise ConfigError(
            "losses.AuxiliaryClassifier needs a data set with labels and an architecture whose discriminator "
            "classifies: set its conditioning = 'auxiliary', e.g. architectures.PGGAN.conditioning"
        )
    return cross_entropy(scores.class_logits, scores.labels)
