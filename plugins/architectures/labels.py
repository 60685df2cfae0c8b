"""Class labels in both networks. Labels are (N,) int64 in [0, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pggan_kit import Scores, SettingError, Stage, check_at_least, check_choice
from pggan_plugins.architectures.layers import PixelNorm

CONDITIONING = ("none", "projection", "auxiliary")


class Conditioning:
    """What an architecture makes of the data set's labels.

    Args:
        conditioning: `none`: neither network looks at them. Otherwise G takes an embedding of the label beside the
            latents, and D judges whether an image fits its label: by `projection` (Miyato and Koyama 2018), or by an
            `auxiliary` classifier (Odena et al. 2017), whose term `losses.AuxiliaryClassifier` adds.
        label_size: length of G's embedding.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, conditioning: str, label_size: int) -> None:
        check_choice("conditioning", conditioning, CONDITIONING)
        check_at_least("label_size", label_size, 1)
        self.kind = conditioning
        self.label_size = label_size

    def latents(self, latent_size: int, stage: Stage, normalise: bool) -> LabelledLatents:
        """G's input."""
        return LabelledLatents(latent_size, self._classes(stage), self.label_size, normalise)

    def scores(self, features: int, stage: Stage, dense: Callable[..., nn.Module]) -> LabelledScores:
        """D's output; `dense(inputs, outputs, gain, bias)` makes a layer with one output a class."""
        classes = self._classes(stage)
        if not classes:
            return LabelledScores(None, self.kind)
        return LabelledScores(dense(features, classes, gain=1.0, bias=self.kind == "auxiliary"), self.kind)

    def _classes(self, stage: Stage) -> int:
        if self.kind == "none":
            return 0
        if not stage.classes:
            raise SettingError("conditioning", f"{self.kind!r} needs a data set with labels, and this one has none")
        return stage.classes


class LabelledLatents(nn.Module):
    """Latents, and behind them the label's embedding; each normalised on its own where `normalise` is set.

    Attributes:
        size: length of the output.
    """

    def __init__(self, latent_size: int, classes: int, label_size: int, normalise: bool) -> None:
        super().__init__()
        self.size = latent_size + (label_size if classes else 0)
        self.normalise = PixelNorm() if normalise else nn.Identity()
        self.embedding = nn.Embedding(classes, label_size) if classes else None

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """(N, Z), (N,) | None -> (N, size).

        Raises:
            ValueError: no labels for a conditional generator.
        """
        latents = self.normalise(latents)
        if self.embedding is None:
            return latents
        if labels is None:
            raise ValueError("labels: this generator is conditional and needs them")
        return torch.cat([latents, self.normalise(self.embedding(labels)).to(latents.dtype)], 1)


class LabelledScores(nn.Module):
    """Completes a discriminator's score with what it makes of the label.

    Args:
        by_class: features (N, F) -> (N, K). For the projection, whose layer has no bias, the K rows of its weight are
            the embeddings of the classes: its output at the label is their inner product with the features.
        conditioning: see `Conditioning`.
    """

    def __init__(self, by_class: nn.Module | None, conditioning: str) -> None:
        super().__init__()
        self.by_class = by_class
        self.projects = conditioning == "projection"

    def forward(self, score: Tensor, features: Tensor, labels: Tensor | None) -> Scores:
        """Scores (N,), features (N, F), labels (N,) | None -> Scores.

        Raises:
            ValueError: no labels for a projection.
        """
        if self.by_class is None:
            return Scores(score, labels=labels)
        by_class: Tensor = self.by_class(features)
        if not self.projects:
            return Scores(score, by_class, labels)
        if labels is None:
            raise ValueError("labels: this discriminator is conditional and needs them")
        return Scores(score + by_class.gather(1, labels[:, None]).squeeze(1), labels=labels)
