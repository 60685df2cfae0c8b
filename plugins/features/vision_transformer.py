"""The vision transformer of DINOv2, with the names of its published weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD_WIDTH = 64
"""Width of an attention head in all networks of DINOv2."""

EPSILON = 1e-6
"""Term in the denominator of layer norm."""

OFFSET = 0.1
"""Addition to a new grid's side before position embeddings are resized, as in DINOv2's code."""


class VisionTransformer(nn.Module):
    """A vision transformer with layer scale (Oquab et al. 2023), which maps images to the class token.

    Args:
        width: Width of the tokens, a multiple of 64.
        depth: Number of blocks.
        hidden: Width of the hidden layer of each block's perceptron.
        patch: Pixels of a side of a patch.
        grid: Patches of a side of the images that the position embeddings were trained for.
    """

    def __init__(self, width: int, depth: int, hidden: int, patch: int, grid: int) -> None:
        super().__init__()
        self.patch = patch
        self.grid = grid
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid * grid, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.Sequential(*(Block(width, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """Return class tokens (N, width) of normalised images (N, 3, h, w); h and w are multiples of the patch."""
        patches = self.patch_embed["proj"](images)
        places = self._resize_places(*patches.shape[2:])
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        outputs: Tensor = self.norm(self.blocks(tokens + places)[:, 0])
        return outputs

    def _resize_places(self, rows: int, columns: int) -> Tensor:
        """Return the position embeddings (1, 1 + rows * columns, width) of a grid of patches."""
        if rows == columns == self.grid:
            return self.pos_embed
        square = self.pos_embed[:, 1:].unflatten(1, (self.grid, self.grid)).permute(0, 3, 1, 2)
        factors = ((rows + OFFSET) / self.grid, (columns + OFFSET) / self.grid)
        resized = F.interpolate(square, scale_factor=factors, mode="bicubic", recompute_scale_factor=False)
        return torch.cat([self.pos_embed[:, :1], resized.flatten(2).mT], 1)


class Block(nn.Module):
    """Attention and a perceptron, each after a layer norm, scaled by a factor for each channel, and added."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=EPSILON)
        self.attn = Attention(width)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})
        self.ls2 = LayerScale(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens)))
        inner = F.gelu(self.mlp["fc1"](self.norm2(tokens)))
        outputs: Tensor = tokens + self.ls2(self.mlp["fc2"](inner))
        return outputs


class Attention(nn.Module):
    """Self-attention of tokens (N, T, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        # (N, T, 3 * width) to three of (N, heads, T, 64)
        queries, keys, values = self.qkv(tokens).unflatten(2, (3, -1, HEAD_WIDTH)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(queries, keys, values)
        outputs: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return outputs


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.gamma
