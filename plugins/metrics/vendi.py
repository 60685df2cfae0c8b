"""The Vendi score: how many different images there are among the fakes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from pggan_kit import Quantity

from .of_features import OfFeatures


class VendiScore(OfFeatures):
    """The Vendi score (Friedman & Dieng 2023) of the fakes: the effective number of different images among them.

    It is the exponential of the entropy of the eigenvalues of K / N, where K is the (N, N) matrix of the cosines of the
    fakes' features: 1 where all are alike, N where all are orthogonal. It knows no reals, so read it beside its
    floor, the value among the reals; and it grows with N, so compare values of equally many images: the floor is of a
    half of the reals, which are as many as the fakes where the data set has twice `evaluation.count`.

    Args:
        features: The extractor.
        suffix: A suffix of the value's name, `Vendi`.
    """

    unsuffixed: ClassVar[Mapping[str, Quantity]] = {"Vendi": Quantity("higher", (1.0, math.inf))}

    def compare(self, real: Tensor, fake: Tensor) -> dict[str, float]:
        """Return `Vendi`, in [1, N], of the fakes' features (N, F) alone; computed in float64.

        Raises:
            ConfigError: Fewer than 2 images of one kind.
        """
        self.require_images(2, real, fake)
        values = fake.double()
        rows = values / values.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)

        # X X^T / N and X^T X / N have the same eigenvalues but for zeros: take the smaller matrix.
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        shares = torch.linalg.eigvalsh(rows @ rows.T / len(values)).clamp(min=0)
        entropy = torch.special.entr(shares).sum()
        return {f"Vendi{self.suffix}": max(1.0, float(entropy.exp()))}
