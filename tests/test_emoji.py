"""The files of experiments/emoji/: features of a plugin file, and the scripts that bring pictures and weights."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.modules import load_module
from helpers.paths import ROOT
from PIL import Image

from pggan_kit import DataError
from pggan_kit.testing import FeatureExtractorSuite

save_file = pytest.importorskip("safetensors.torch").save_file


plugin = load_module(ROOT / "experiments" / "emoji" / "features.py")
fetching = load_module(ROOT / "scripts" / "fetch_emoji.py")
training = load_module(ROOT / "scripts" / "train_emoji_features.py")


def write_weights(path: Path, variant: str = "a", **metadata: str) -> Path:
    torch.manual_seed(0)
    save_file(plugin.Classifier(variant, 5).state_dict(), path, metadata or {"variant": variant})
    return path


class TestEmoji(FeatureExtractorSuite):
    image_channels = (3,)

    @pytest.fixture(autouse=True)
    def weights(self, tmp_path: Path) -> None:
        self.path = write_weights(tmp_path / "a.safetensors")

    def make(self) -> Any:
        return plugin.Emoji(self.path)


def test_wrong_weights_are_refused(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(b"no weights")
    unnamed = write_weights(tmp_path / "unnamed.safetensors", licence="none")
    mistaken = tmp_path / "mistaken.safetensors"
    save_file(plugin.Classifier("b", 5).state_dict(), mistaken, {"variant": "a"})
    for path in (tmp_path / "missing.safetensors", plain, unnamed, mistaken):
        with pytest.raises(DataError, match=r"make it with scripts/train_emoji_features\.py"):
            plugin.Emoji(path)


def make_archive(path: Path) -> None:
    """Write an archive like the package's: two pictures, one of another size, and what would lie outside the folder."""
    buffer = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(buffer, "png")
    names = ["img/google/64/1f600.png", "img/google/64/1f601.png", "img/google/sheets/64.png", "emoji.json"]
    with tarfile.open(path, "w:gz") as archive:
        for name in [*(f"package/{name}" for name in names), "package/img/google/64/../../x.png", "../y.png"]:
            member = tarfile.TarInfo(name)
            member.size = len(buffer.getvalue())
            archive.addfile(member, io.BytesIO(buffer.getvalue()))


def test_pictures_of_one_size_are_unpacked_and_nothing_else(tmp_path: Path) -> None:
    make_archive(tmp_path / "package.tgz")
    assert fetching.unpack_pictures(tmp_path / "package.tgz", tmp_path / "out") == 2
    written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert written == ["out/emoji.json", "out/pictures/1f600.png", "out/pictures/1f601.png", "package.tgz"]


def test_tones_of_an_emoji_are_on_one_side_and_small_groups_are_one(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    entries = []
    for number in range(30):
        name = f"{number:02}.png"
        tone = f"{number:02}-tone.png"
        group = "face" if number < 26 else f"rare {number}"
        entries.append(
            {"image": name, "category": "C", "subcategory": group, "skin_variations": {"1F3FB": {"image": tone}}}
        )
        for file in (name, tone):
            Image.new("RGBA", (64, 64), (number, 0, 0, 255)).save(tmp_path / "pictures" / file)
    (tmp_path / "emoji.json").write_text(json.dumps(entries))

    images, groups, held_out, count = training.load_pictures(tmp_path)
    assert images.shape == (60, 3, 64, 64)
    assert count == 2
    assert groups.bincount().sort().values.tolist() == [8, 52]
    assert held_out.reshape(30, 2).all(1).sum() == held_out.sum() / 2 == 3
    assert images[2, 0, 0, 0].item() == pytest.approx(1 / 127.5 - 1)


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "empty.png")
    assert np.all(training.read_on_white(tmp_path / "empty.png") == 255)
