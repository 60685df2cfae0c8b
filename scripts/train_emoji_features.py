"""Train the classifiers of `experiments/emoji/features.py`.

    python scripts/train_emoji_features.py FOLDER

FOLDER is what `scripts/fetch_emoji.py` made; it gets `a.safetensors` and `b.safetensors`. Each network learns to which
group (as `face-smiling` or `country-flag`) a picture belongs. A tenth of the emoji, with all skin tones, is held out
and measures it. About two minutes a variant on one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

SMALLEST_GROUP = 12
"""Minimum number of pictures of a group; smaller groups of a category are one."""

EPOCHS = 20
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 5e-2
HELD_OUT = 10
"""One emoji in ten is held out."""

SEEDS = {"a": 1, "b": 2}


def load_plugin() -> ModuleType:
    """Load the plugin file whose networks are trained."""
    path = Path(__file__).parents[1] / "experiments" / "emoji" / "features.py"
    spec = importlib.util.spec_from_file_location("emoji_features", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_pictures(folder: Path) -> tuple[Tensor, Tensor, Tensor, int]:
    """Load the pictures on white.

    Returns:
        Images (N, 3, 64, 64) in [-1, 1], groups (N,), whether each is held out (N,), and the number of groups.
    """
    entries = json.loads((folder / "emoji.json").read_text())
    rows = []
    for number, entry in enumerate(sorted(entries, key=lambda entry: entry["image"])):
        group = (entry["category"], entry["subcategory"])
        for variation in (entry, *entry.get("skin_variations", {}).values()):
            path = folder / "pictures" / variation["image"]
            if path.exists():
                rows.append((path, group, number % HELD_OUT == 0))

    sizes = Counter(group for _, group, _ in rows)
    names = [group if sizes[group] >= SMALLEST_GROUP else (group[0], "") for _, group, _ in rows]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    pixels = np.stack([read_on_white(path) for path, _, _ in rows])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    groups = torch.tensor([numbers[name] for name in names])
    held_out = torch.tensor([is_held_out for _, _, is_held_out in rows])
    return images, groups, held_out, len(numbers)


def read_on_white(path: Path) -> np.ndarray:
    """Return a picture's pixels (64, 64, 3) on white."""
    picture = Image.open(path).convert("RGBA")
    behind = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(behind, picture).convert("RGB"))


def vary_images(images: Tensor) -> Tensor:
    """Flip and shift the images, blur some of them as small images are, and add noise."""
    flipped = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images, images.flip(3))
    padded = F.pad(flipped, (4, 4, 4, 4), value=1.0)
    down = int(torch.randint(0, 9, ()))
    right = int(torch.randint(0, 9, ()))
    shifted = padded[:, :, down : down + 64, right : right + 64]

    # A generator's images lack the finest detail, and so do the small stages'.
    size = (16, 32, 48, 64)[int(torch.randint(0, 4, ()))]
    small = F.interpolate(shifted, (size, size), mode="bilinear", antialias=True)
    blurred = F.interpolate(small, (64, 64), mode="bilinear")
    noise = 0.1 * torch.rand(len(images), 1, 1, 1) * torch.randn_like(images)
    return (blurred + noise).clamp(-1, 1)


def train_variant(plugin: ModuleType, variant: str, folder: Path) -> None:
    """Train one variant, print its accuracy on held-out emoji, and write its weights."""
    # The pictures to learn from, and one cycle of the rate over all steps.
    images, groups, held_out, classes = load_pictures(folder)
    torch.manual_seed(SEEDS[variant])
    net = plugin.Classifier(variant, classes)
    learning = torch.nonzero(~held_out)[:, 0]
    steps = EPOCHS * (len(learning) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for epoch in range(EPOCHS):
        net.train()
        order = learning[torch.randperm(len(learning))][: steps // EPOCHS * BATCH]
        for rows in order.split(BATCH):
            loss = F.cross_entropy(net(vary_images(images[rows])), groups[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        # Pictures that it has not learnt from.
        net.eval()
        with torch.no_grad():
            correct = net(images[held_out]).argmax(1) == groups[held_out]
        accuracy = correct.float().mean().item()
        share = f"{accuracy:.3f} of {len(correct)} held-out pictures"
        print(f"{variant}, epoch {epoch}: {share} in the right one of {classes} groups", flush=True)

    metadata = {"variant": variant, "held_out_accuracy": f"{accuracy:.4f}", "license": "Apache-2.0, as the pictures"}
    save_file(net.state_dict(), folder / f"{variant}.safetensors", metadata)


def main() -> None:
    """Train both variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    plugin = load_plugin()
    for variant in SEEDS:
        train_variant(plugin, variant, folder)


if __name__ == "__main__":
    main()
