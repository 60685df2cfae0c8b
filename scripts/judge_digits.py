"""Judge trained generators of digits by a classifier that took no part in the project.

    python scripts/judge_digits.py train --folder FOLDER --judge judge.safetensors
    python scripts/judge_digits.py judge --folder FOLDER --judge judge.safetensors RUN ...

FOLDER holds the full MNIST files. `train` fits the judge on the 60,000 training digits: about two minutes on one core.
`judge` prints for 10,000 images of each run, and for the 10,000 test digits as the floor:

* the Fréchet distance of the judge's features to those of the training digits (Heusel et al. 2017, equation 6);
* the mean confidence, the largest class probability of an image, in [0.1, 1];
* the Kullback-Leibler divergence of the mean class probabilities from equal ones, at least 0, in nats.

Its network, seed and training differ from those of `features.Digits`, by which recipes are tuned.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import pggan_kit
from pggan_kit.layers.tensors import images_from_uint8
from pggan_plugins.datasets.mnist import read_split

SEED = 11
EPOCHS = 4
BATCH = 128
LEARNING_RATE = 2e-3
IMAGES = 10_000
CHUNK = 500


class Judge(nn.Module):
    """A convolutional classifier of 28x28 digits with 100 features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 5, 2, 2),
            nn.GELU(),
            nn.Conv2d(24, 48, 3, 1, 1),
            nn.GELU(),
            nn.Conv2d(48, 64, 3, 2, 1),
            nn.GELU(),
            nn.Conv2d(64, 64, 3, 1, 1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 100),
            nn.GELU(),
        )
        self.head = nn.Linear(100, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, 100) and class logits (N, 10) of images (N, 1, 28, 28) in [-1, 1]."""
        features = self.body(images)
        return features, self.head(F.dropout(features, 0.3, self.training))


def load_digits(folder: str, split: str) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, 28, 28) in [-1, 1] and labels (N,) of `train` or `test`."""
    images, labels = read_split(Path(folder), split)
    pixels = torch.from_numpy(np.array(images)).reshape(len(images), 1, 28, 28)
    return images_from_uint8(pixels), torch.from_numpy(np.array(labels)).long()


def vary(images: Tensor) -> Tensor:
    """Shift a batch by up to two pixels, and add noise: the judge must not measure where a digit stands."""
    down, right = torch.randint(0, 5, (2,)).tolist()
    padded = F.pad(images, (2, 2, 2, 2), value=-1.0)
    shifted = padded[:, :, down : down + 28, right : right + 28]
    noise = 0.1 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(shifted)
    return (shifted + noise).clamp(-1, 1)


def train_judge(folder: str) -> Judge:
    """Return a judge that is trained on the training digits, and print its accuracy on the test digits."""
    torch.manual_seed(SEED)
    images, labels = load_digits(folder, "train")
    judge = Judge()
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            _, logits = judge(vary(images[rows]))
            loss = F.cross_entropy(logits, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()

    judge.eval()
    test_images, test_labels = load_digits(folder, "test")
    _, probabilities = describe(judge, test_images.split(CHUNK))
    accuracy = float((probabilities.argmax(1) == test_labels.numpy()).mean())
    print(f"the judge classifies {accuracy:.2%} of the test digits correctly")
    return judge


@torch.no_grad()
def describe(judge: Judge, batches: Iterator[Tensor] | tuple[Tensor, ...]) -> tuple[NDArray[np.float64], ...]:
    """Return the features (N, 100) and the class probabilities (N, 10) of batches of images, in float64."""
    features = []
    probabilities = []
    for images in batches:
        own, logits = judge(images)
        features.append(own.double())
        probabilities.append(logits.double().softmax(1))
    return torch.cat(features).numpy(), torch.cat(probabilities).numpy()


def draw_batches(run: str) -> Iterator[Tensor]:
    """Yield images of a run's averaged generator, rounded to 256 levels as files are; all classes equally often."""
    generator = pggan_kit.load_generator(run)
    labels = None
    if generator.classes:
        labels = torch.arange(CHUNK) % generator.classes
    for seed in range(IMAGES // CHUNK):
        latents = torch.randn(CHUNK, generator.latent_size, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            images = generator(latents, labels)
        yield ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def compute_frechet_distance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Return the Fréchet distance of two sets of features (N, F), as of normal distributions."""
    apart = ours.mean(0) - theirs.mean(0)
    first = np.cov(ours, rowvar=False)
    second = np.cov(theirs, rowvar=False)
    # The trace of the root of a product is the sum of the roots of its eigenvalues.
    shared = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0)).sum()
    return float(apart @ apart + np.trace(first) + np.trace(second) - 2 * shared)


def print_verdict(name: str, described: tuple[NDArray[np.float64], ...], reals: NDArray[np.float64]) -> None:
    """Print the three numbers of one set of images."""
    features, probabilities = described
    classes = probabilities.mean(0)
    divergence = float((classes * np.log(10 * classes)).sum())
    distance = compute_frechet_distance(features, reals)
    confidence = float(probabilities.max(1).mean())
    assert math.isfinite(distance)
    print(f"{name}: FID {distance:.2f}  confidence {confidence:.4f}  class-KL {divergence:.4f}", flush=True)


def main() -> None:
    """Train the judge, or judge runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("train", "judge"))
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--folder", required=True)
    parser.add_argument("--judge", required=True, type=Path)
    args = parser.parse_intermixed_args()
    if args.command == "train":
        save_file(train_judge(args.folder).state_dict(), args.judge)
        return

    judge = Judge()
    judge.load_state_dict(load_file(args.judge))
    judge.eval()
    training, _ = load_digits(args.folder, "train")
    reals, _ = describe(judge, training.split(CHUNK))
    test, _ = load_digits(args.folder, "test")
    print_verdict("the test digits", describe(judge, test.split(CHUNK)), reals)
    for run in args.runs:
        print_verdict(run, describe(judge, draw_batches(run)), reals)


if __name__ == "__main__":
    main()
