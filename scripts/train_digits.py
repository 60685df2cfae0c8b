"""Train the classifiers of `features.Digits`.

    python scripts/train_digits.py VARIANT --folder FOLDER [--out OUT]

VARIANT is `a` or `b`; FOLDER holds the full MNIST files, gzipped or not; OUT is plugins/features/digits unless given.
Trains on the first 50,000 training digits, keeps the network after the epoch that is best on the last 10,000, and
measures it, once, on the 10,000 test digits. About five minutes a variant on one core.
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

EPOCHS = 8
BATCH = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
SEEDS = {"a": 1, "b": 2}

Digits = tuple[Tensor, Tensor]
"""Digits: images (N, 1, size, size) in [-1, 1], and labels (N,)."""


def load_split(folder: str, split: str) -> dict[int, Digits]:
    """Load a split at each size, resized as for training."""
    pyramid = Pyramid(MNIST(folder, split), DataSettings("area"), [(size, size) for size in SIZES])
    digits = {}
    for (size, _), level in pyramid.levels.items():
        assert level.labels is not None
        images = images_from_uint8(torch.from_numpy(np.array(level.images)))
        digits[size] = (images, torch.from_numpy(level.labels))
    return digits


def fit_classifier(net: Classifier, learning: Digits, tuning: Digits, size: int) -> Classifier:
    """Train a network, and return it as it was after the epoch that is best on the tuning digits."""
    images, labels = learning
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)

    best = net
    best_accuracy = 0.0
    for epoch in range(EPOCHS):
        net.train()
        for rows in torch.randperm(len(images))[: steps // EPOCHS * BATCH].split(BATCH):
            inputs = vary_contrast(shift_images(images[rows], size // 14))
            loss = F.cross_entropy(net(inputs), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()

        accuracy = measure_accuracy(net.eval(), tuning)
        print(f"{size}x{size}, epoch {epoch}: {accuracy:.4f} of the tuning digits", flush=True)
        if accuracy > best_accuracy:
            best = copy.deepcopy(net)
            best_accuracy = accuracy
    return best


def shift_images(images: Tensor, most: int) -> Tensor:
    """Shift the whole batch by up to `most` pixels in each direction, with black behind it."""
    down = int(torch.randint(-most, most + 1, ()))
    right = int(torch.randint(-most, most + 1, ()))
    padded = F.pad(images, (most, most, most, most), value=-1.0)
    height, width = images.shape[2:]
    return padded[:, :, most - down : most - down + height, most - right : most - right + width]


def vary_contrast(images: Tensor) -> Tensor:
    """Give each image a paler black and a darker white, and some noise.

    Features that jump at a faint grey background would measure that background, not digits.
    """
    black = torch.rand(len(images), 1, 1, 1)
    white = torch.rand(len(images), 1, 1, 1)
    noise = torch.rand(len(images), 1, 1, 1)
    low = -1 + 0.3 * black
    high = 1 - 0.3 * white
    varied = low + (images + 1) / 2 * (high - low) + 0.15 * noise * torch.randn_like(images)
    return varied.clamp(-1, 1)


@torch.no_grad()
def measure_accuracy(net: Classifier, digits: Digits) -> float:
    """Return the share of digits that the network classifies correctly."""
    images, labels = digits
    correct = 0
    for image_rows, label_rows in zip(images.split(1000), labels.split(1000), strict=True):
        correct += int((net(image_rows).argmax(1) == label_rows).sum())
    return correct / len(labels)


def main() -> None:
    """Train, measure and write one variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variant", choices=tuple(VARIANTS))
    parser.add_argument("--folder", required=True)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    learning, tuning, test = (load_split(args.folder, split) for split in ("learning", "tuning", "test"))

    # Train a classifier for each size. It is measured as it will be loaded: with weights rounded to float16.
    weights: dict[str, Tensor] = {}
    accuracies: dict[str, dict[str, float]] = {"tuning_accuracy": {}, "test_accuracy": {}}
    for size in SIZES:
        torch.manual_seed(derive(SEEDS[args.variant], "digits", args.variant, size))
        net = fit_classifier(VARIANTS[args.variant](size), learning[size], tuning[size], size).half().float()
        accuracies["tuning_accuracy"][str(size)] = measure_accuracy(net, tuning[size])
        accuracies["test_accuracy"][str(size)] = measure_accuracy(net, test[size])
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                weights[f"{size}.{key}"] = value.half()

    # Write all sizes to one file, with the accuracies beside them.
    metadata = {name: json_text(values) for name, values in accuracies.items()}
    metadata["license"] = "CC BY-SA 3.0, as MNIST by Yann LeCun, Corinna Cortes and Christopher J. C. Burges"
    args.out.mkdir(parents=True, exist_ok=True)
    save_file(weights, args.out / f"{args.variant}.safetensors", metadata)
    print(json_text(accuracies))


if __name__ == "__main__":
    main()
