"""Train the classifiers of `features.Digits`.

    python scripts/train_digits.py VARIANT --folder FOLDER [--out OUT]

VARIANT is `a` or `b`; FOLDER holds the full MNIST files, gzipped or not; OUT is plugins/features/digits unless given.
Learns from the first 50,000 training digits, keeps of all epochs the one that is best on the last 10,000, and measures
it, once, on the 10,000 test digits. About five minutes a variant on one core.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from pggan_kit.data.pyramid import Pyramid
from pggan_kit.data.settings import DataSettings
from pggan_kit.layers.tensors import images_from_uint8
from pggan_kit.system.json_text import json_text
from pggan_kit.system.seeding import derive
from pggan_plugins.datasets import MNIST
from pggan_plugins.features.digits import SIZES, VARIANTS, WEIGHTS, Classifier

EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 8, 128, 3e-3, 1e-2
SEEDS = {"a": 1, "b": 2}

Digits = tuple[Tensor, Tensor]
"""Images (N, 1, size, size) in [-1, 1], and labels (N,)."""


def load(folder: str, split: str) -> dict[int, Digits]:
    """A split at each size, resized as for training."""
    pyramid = Pyramid(MNIST(folder, split), DataSettings("area"), [(size, size) for size in SIZES])
    found = {}
    for (size, _), level in pyramid.levels.items():
        assert level.labels is not None
        images = images_from_uint8(torch.from_numpy(np.array(level.images)))
        found[size] = images, torch.from_numpy(level.labels)
    return found


def fit(net: Classifier, learning: Digits, tuning: Digits, size: int) -> Classifier:
    """The network after the epoch that is best on the tuning digits."""
    images, labels = learning
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    best, most = net, 0.0
    for epoch in range(EPOCHS):
        net.train()
        for rows in torch.randperm(len(images))[: steps // EPOCHS * BATCH].split(BATCH):
            loss = F.cross_entropy(net(worn(shifted(images[rows], size // 14))), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        right = accuracy(net.eval(), tuning)
        print(f"{size}x{size}, epoch {epoch}: {right:.4f} of the tuning digits", flush=True)
        if right > most:
            best, most = copy.deepcopy(net), right
    return best


def shifted(images: Tensor, most: int) -> Tensor:
    """The batch moved by up to so many pixels in each direction, black where nothing comes after."""
    down, right = (int(torch.randint(-most, most + 1, ())) for _ in range(2))
    padded = F.pad(images, (most, most, most, most), value=-1.0)
    height, width = images.shape[2:]
    return padded[:, :, most - down : most - down + height, most - right : most - right + width]


def worn(images: Tensor) -> Tensor:
    """Each image with a paler black and a darker white, and some noise: features that jump at a faint grey background
    would measure that, and not digits."""
    black, white, noise = (torch.rand(len(images), 1, 1, 1) for _ in range(3))
    low, high = -1 + 0.3 * black, 1 - 0.3 * white
    faded = low + (images + 1) / 2 * (high - low) + 0.15 * noise * torch.randn_like(images)
    return faded.clamp(-1, 1)


@torch.no_grad()
def accuracy(net: Classifier, digits: Digits) -> float:
    """The share of digits that the network names."""
    images, labels = digits
    right = sum(int((net(i).argmax(1) == k).sum()) for i, k in zip(images.split(1000), labels.split(1000), strict=True))
    return right / len(labels)


def main() -> None:
    """Train, measure and write one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=tuple(VARIANTS))
    parser.add_argument("--folder", required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    given = parser.parse_args()
    learning, tuning, test = (load(given.folder, split) for split in ("learning", "tuning", "test"))
    weights: dict[str, Tensor] = {}
    found: dict[str, dict[str, float]] = {"tuning_accuracy": {}, "test_accuracy": {}}
    for size in SIZES:
        torch.manual_seed(derive(SEEDS[given.variant], "digits", given.variant, size))
        net = fit(VARIANTS[given.variant](size), learning[size], tuning[size], size).half().float()
        found["tuning_accuracy"][str(size)] = accuracy(net, tuning[size])
        found["test_accuracy"][str(size)] = accuracy(net, test[size])
        kept = {key: value for key, value in net.state_dict().items() if value.is_floating_point()}
        weights |= {f"{size}.{key}": value.half() for key, value in kept.items()}
    about = {name: json_text(values) for name, values in found.items()}
    about["license"] = "CC BY-SA 3.0, as MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges"
    given.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, given.out / f"{given.variant}.safetensors", about)
    print(json_text(found))


if __name__ == "__main__":
    main()
