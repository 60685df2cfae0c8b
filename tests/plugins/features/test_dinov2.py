"""`features.DINOv2` with a stand-in: a small network of random weights, against torch's transformer in float64."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from pggan_kit.errors import DataError
from pggan_kit.testing import FeatureExtractorSuite
from pggan_plugins.features import DINOv2
from pggan_plugins.features.dinov2 import build_network

WIDTH = 128
HIDDEN = 192
DEPTH = 3
PATCH = 14
GRID = 5


def draw_weights() -> dict[str, Tensor]:
    """Return random weights with the names and shapes of the published ones, but small."""
    generator = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "mask_token": (1, WIDTH),
        "pos_embed": (1, 1 + GRID**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    for i in range(DEPTH):
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (WIDTH,)
        for name, outputs, inputs in (
            ("attn.qkv", 3 * WIDTH, WIDTH),
            ("attn.proj", WIDTH, WIDTH),
            ("mlp.fc1", HIDDEN, WIDTH),
            ("mlp.fc2", WIDTH, HIDDEN),
        ):
            shapes[f"blocks.{i}.{name}.weight"] = (outputs, inputs)
            shapes[f"blocks.{i}.{name}.bias"] = (outputs,)
    return {name: torch.randn(*shape, generator=generator) * 0.2 for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file(draw_weights(), path)
    return path


class TestDINOv2(FeatureExtractorSuite):
    bad_arguments = ({"size": 0}, {"size": 30})

    @pytest.fixture(autouse=True)
    def _use_stand_in(self, stand_in: Path) -> None:
        self.path = stand_in

    def make(self) -> DINOv2:
        return DINOv2(self.path, 28)

    def make_with(self, **arguments: Any) -> DINOv2:
        return DINOv2(self.path, **arguments)


def interpolate_cubic(values: np.ndarray, count: int) -> np.ndarray:
    """Interpolate the first axis to `count` places by cubic convolution with -0.75 (Keys 1981), as DINOv2 does."""

    def weigh(distance: float) -> float:
        x = abs(distance)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    rows = []
    for i in range(count):
        place = (i + 0.5) * len(values) / (count + 0.1) - 0.5
        nearest = range(math.floor(place) - 1, math.floor(place) + 3)
        rows.append(sum(weigh(place - j) * values[min(max(j, 0), len(values) - 1)] for j in nearest))
    return np.stack(rows)


def compute_by_torch(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """Compute class tokens with torch's encoder layers, in float64; layer scale is a part of the layers' weights."""
    # Patches as tokens.
    weights = {name: value.double() for name, value in weights.items()}
    count, _, height, width = images.shape
    rows, columns = height // PATCH, width // PATCH
    patches = images.double().unflatten(2, (rows, PATCH)).unflatten(4, (columns, PATCH))
    tokens = torch.einsum("ncrpsq,wcpq->nrsw", patches, weights["patch_embed.proj.weight"])
    tokens = (tokens + weights["patch_embed.proj.bias"]).flatten(1, 2)

    # Their places, and the token of the class.
    places = weights["pos_embed"][0, 1:].unflatten(0, (GRID, GRID)).numpy()
    if (rows, columns) != (GRID, GRID):
        places = interpolate_cubic(interpolate_cubic(places, rows).swapaxes(0, 1), columns).swapaxes(0, 1)
    tokens = tokens + torch.from_numpy(places.copy()).flatten(0, 1)
    first = (weights["cls_token"][0] + weights["pos_embed"][0, :1]).expand(count, 1, WIDTH)
    tokens = torch.cat([first, tokens], 1)

    # The blocks, of which torch has the layers.
    for i in range(DEPTH):
        own = {n.removeprefix(f"blocks.{i}."): v for n, v in weights.items() if n.startswith(f"blocks.{i}.")}
        layer = nn.TransformerEncoderLayer(
            WIDTH, WIDTH // 64, HIDDEN, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True, dtype=torch.float64
        )
        layer.load_state_dict(
            {
                "self_attn.in_proj_weight": own["attn.qkv.weight"],
                "self_attn.in_proj_bias": own["attn.qkv.bias"],
                "self_attn.out_proj.weight": own["ls1.gamma"][:, None] * own["attn.proj.weight"],
                "self_attn.out_proj.bias": own["ls1.gamma"] * own["attn.proj.bias"],
                "linear1.weight": own["mlp.fc1.weight"],
                "linear1.bias": own["mlp.fc1.bias"],
                "linear2.weight": own["ls2.gamma"][:, None] * own["mlp.fc2.weight"],
                "linear2.bias": own["ls2.gamma"] * own["mlp.fc2.bias"],
                **{name: value for name, value in own.items() if name.startswith("norm")},
            }
        )
        tokens = layer.train()(tokens)
    return nn.functional.layer_norm(tokens[:, 0], (WIDTH,), weights["norm.weight"], weights["norm.bias"], 1e-6)


@pytest.mark.parametrize("grid", [(GRID, GRID), (3, 3), (7, 2)])
def test_the_network_is_a_transformer_with_layer_scale(grid: tuple[int, int]) -> None:
    """Also at other sizes than that of the position embeddings."""
    weights = draw_weights()
    images = torch.randn(2, 3, *(PATCH * n for n in grid), generator=torch.Generator().manual_seed(1))
    net = build_network({name: value for name, value in weights.items() if name != "mask_token"}, Path("x"))
    with torch.no_grad():
        actual = net(images)
        wanted = compute_by_torch(weights, images)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), wanted.numpy(), atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_resized_and_normalised(stand_in: Path, channels: int) -> None:
    """Resized as by Pillow, in floats; gray in all three channels; with the means and spreads of ImageNet."""
    images = torch.rand(2, channels, 60, 90, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    prepared = np.empty((2, 3, 42, 42))
    for i, image in enumerate(images.expand(-1, 3, -1, -1).numpy()):
        for c, channel in enumerate(image):
            resized = Image.fromarray(channel).resize((42, 42), Image.Resampling.BICUBIC)
            prepared[i, c] = ((np.asarray(resized) + 1) / 2 - mean[c]) / std[c]
    wanted = compute_by_torch(draw_weights(), torch.from_numpy(prepared)).detach()
    actual = DINOv2(stand_in, 42)(images)
    np.testing.assert_allclose(actual.numpy(), wanted.numpy(), atol=1e-3 * float(wanted.abs().max()))


def test_fingerprints_tell_weights_and_sizes_apart(tmp_path: Path, stand_in: Path) -> None:
    weights = draw_weights()
    weights["norm.bias"][0] += 1
    save_file(weights, tmp_path / "other.safetensors")
    paths = (stand_in, tmp_path / "other.safetensors")
    prints = {DINOv2(path, size).fingerprint() for path in paths for size in (14, 28)}
    assert len(prints) == 4


def test_half_precision_weights_are_used_in_float32(tmp_path: Path) -> None:
    halves = {name: value.half() for name, value in draw_weights().items()}
    save_file(halves, tmp_path / "a.safetensors")
    images = torch.rand(1, 3, 28, 28)
    assert DINOv2(tmp_path / "a.safetensors", 28)(images).dtype == torch.float32


def test_the_usual_size_is_224(stand_in: Path) -> None:
    assert DINOv2(stand_in).size == 224


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (0, "must be a whole number of at least 1, and is 0"),
        (2.5, "must be a whole number of at least 1"),
        (30, "must be a multiple of 14, the pixels of a patch's side, and is 30"),
    ],
)
def test_wrong_sizes(stand_in: Path, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^size {message}"):
        DINOv2(stand_in, size)


def rename(weights: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: rename(w, "patch_embed", "embeddings"), r"holds no such network \(KeyError: 'patch_embed"),
        (lambda w: {**w, "pos_embed": torch.zeros(3)}, r"holds no such network \(ValueError"),
        (lambda w: rename(w, "mlp.fc2", "mlp.w3"), r"holds another network \(.*[Mm]issing key.*mlp\.fc2"),
        (lambda w: {**w, "register_tokens": torch.zeros(1, 4, WIDTH)}, r"holds another network \(.*register_tokens"),
        (lambda w: {**w, "norm.bias": torch.zeros(3)}, r"holds another network \(.*norm\.bias"),
        (lambda w: {n: v for n, v in w.items() if not n.startswith("blocks.1.")}, r"holds another network .*blocks\.1"),
    ],
)
def test_weights_of_other_networks(
    tmp_path: Path, spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    save_file(spoil(draw_weights()), tmp_path / "a.safetensors")
    wanted = rf"^features\.DINOv2\.weights: .*a\.safetensors {message}.* without registers"
    with pytest.raises(DataError, match=wanted) as caught:
        DINOv2(tmp_path / "a.safetensors")
    assert len(str(caught.value)) < 800


def test_a_width_without_whole_heads(tmp_path: Path) -> None:
    narrow = {}
    for name, value in draw_weights().items():
        sides = [{WIDTH: 96, 3 * WIDTH: 288}.get(n, n) for n in value.shape]
        narrow[name] = torch.zeros(sides)
    save_file(narrow, tmp_path / "a.safetensors")
    with pytest.raises(DataError, match=r"holds another network \(its width 96 is no multiple of 64\)"):
        DINOv2(tmp_path / "a.safetensors")


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


def test_files_that_are_no_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them a pickle, which would run code where torch loads it."""
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, tmp_path / "a.pth")
    (tmp_path / "b.safetensors").write_bytes(b"")
    for name in ("a.pth", "b.safetensors"):
        with pytest.raises(DataError, match=r"^features\.DINOv2\.weights: .* cannot be read as safetensors \("):
            DINOv2(tmp_path / name)
    assert not Path("executed").exists()
    with pytest.raises(DataError, match=r"^features\.DINOv2\.weights: no file .*nowhere: name a file of DINOv2"):
        DINOv2(tmp_path / "nowhere")


def test_dinov2_without_safetensors(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(DataError, match=r"features.DINOv2 needs .*pip install 'pggan_kit\[metrics\]'"):
        DINOv2(stand_in)


def test_a_run_measures_with_it(train: Callable[..., Any], stand_in: Path) -> None:
    run = train(
        "train.metrics = [@metrics.KernelDistance()]",
        "metrics.KernelDistance.features = @features.DINOv2()",
        f"features.DINOv2.weights = {str(stand_in)!r}",
        "features.DINOv2.size = 28",
        "evaluation.count = 8",
    )
    assert math.isfinite(run.stats[-1]["Metrics/KID"])
