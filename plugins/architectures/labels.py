"""Class labels in both networks; labels are (N,) int64 in [0, K)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pggan_kit import Scores, SettingError, Stage, check_at_least, check_choice
from pggan_plugins.architectures.layers import PixelNorm

CONDITIONING = ("none", "projection", "auxiliary")


class Conditioning:
    """How an architecture uses the data set's labels.

    Args:
        conditioning: `none`: neither network uses them. Otherwise G takes an embedding of the label beside the latents,
            and D judges whether an image fits its label: by `projection` (Miyato and Koyama 2018), or by an `auxiliary`
            classifier (Odena et al. 2017), whose term `losses.AuxiliaryClassifier` adds.
        label_size: Length of G's embedding, at least 1.

    Raises:
        ValueError: A value is out of range.
    """

    def __init__(self, conditioning: str, label_size: int) -> None:
        check_choice("conditioning", conditioning, CONDITIONING)
        check_at_least("label_size", label_size, 1)
        self.kind = conditioning
        self.label_size = label_size

    def make_latents(self, latent_size: int, stage: Stage, normalise: bool) -> LabelledLatents:
        """Return the module that makes G's input from latents and labels.

        Raises:
            SettingError: The architecture is conditional, and the data set has no labels.
        """
        return LabelledLatents(latent_size, self.count_classes(stage), self.label_size, normalise)

    def make_scores(self, features: int, stage: Stage, make_dense: Callable[..., nn.Module]) -> LabelledScores:
        """Return the module that makes D's output from a score, features and labels.

        Args:
            features: Number of features before the last layer.
            stage: The base stage.
            make_dense: Factory of a dense layer, `make_dense(inputs, outputs, gain, bias)`; called for a layer with one
                output for each class.

        Raises:
            SettingError: The architecture is conditional, and the data set has no labels.
        """
        classes = self.count_classes(stage)
        if not classes:
            return LabelledScores(None, self.kind)
        # The projection's weights are embeddings, which have no bias.
        by_class = make_dense(features, classes, gain=1.0, bias=self.kind == "auxiliary")
        return LabelledScores(by_class, self.kind)

    def count_classes(self, stage: Stage) -> int:
        """Return the number of classes to condition on; 0 without conditioning.

        Raises:
            SettingError: The architecture is conditional, and the data set has no labels.
        """
        if self.kind == "none":
            return 0
        if not stage.classes:
            raise SettingError("conditioning", f"{self.kind!r} needs a data set with labels, but this one has none")
        return stage.classes


class LabelledLatents(nn.Module):
    """Latents followed by the label's embedding, each normalised separately where `normalise` is set.

    Args:
        latent_size: Length of the latents.
        classes: Number of classes; 0 for no embedding.
        label_size: Length of the embedding.
        normalise: Whether to apply pixel norm.

    Attributes:
        size: Length of the output.
    """

    def __init__(self, latent_size: int, classes: int, label_size: int, normalise: bool) -> None:
        super().__init__()
        self.size = latent_size
        self.normalise = PixelNorm() if normalise else nn.Identity()
        self.embedding = None
        if classes:
            self.size += label_size
            self.embedding = nn.Embedding(classes, label_size)

    def forward(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Map latents (N, Z) and labels (N,) | None to (N, size).

        Raises:
            ValueError: A conditional generator has no labels.
        """
        latents = self.normalise(latents)
        if self.embedding is None:
            return latents
        if labels is None:
            raise ValueError("labels: this generator is conditional; pass a label for each latent")
        embedded = self.normalise(self.embedding(labels))
        return torch.cat([latents, embedded.to(latents.dtype)], 1)


class LabelledScores(nn.Module):
    """Scores of a discriminator, completed by what it computes for the labels.

    Args:
        by_class: Layer (N, F) -> (N, K). For the projection, whose layer has no bias, the K rows of its weight are the
            embeddings of the classes: its output at the label is their inner product with the features. None without
            conditioning.
        conditioning: Use of the labels: see `Conditioning`.
    """

    def __init__(self, by_class: nn.Module | None, conditioning: str) -> None:
        super().__init__()
        self.by_class = by_class
        self.projects = conditioning == "projection"

    def forward(self, score: Tensor, features: Tensor, labels: Tensor | None) -> Scores:
        """Map scores (N,), features (N, F) and labels (N,) | None to Scores.

        Raises:
            ValueError: A projection has no labels.
        """
        if self.by_class is None:
            return Scores(score, labels=labels)

        # The auxiliary classifier leaves the score alone.
        by_class: Tensor = self.by_class(features)
        if not self.projects:
            return Scores(score, by_class, labels)

        # The projection adds what it computes at the label.
        if labels is None:
            raise ValueError("labels: this discriminator is conditional; pass a label for each image")
        projection = by_class.gather(1, labels[:, None]).squeeze(1)
        return Scores(score + projection, labels=labels)
