"""The yardstick: the paper's networks and training iteration in plain eager PyTorch (Karras et al. 2018, appendix A.1).

It shares no code with pggan_kit; tests/benchmarking/test_reference.py holds it to the same losses and gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scaled(nn.Module):
    """A convolution, or without `kernel` a dense layer, of N(0, 1) weights scaled at run time (section 4.1)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, gain: float = 2**0.5, bias: bool = True) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain * self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight, pad = self.weight * self.scale, self.kernel // 2
        return F.conv2d(x, weight, self.bias, padding=pad) if self.kernel else F.linear(x, weight, self.bias)


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def pixel_norm(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def upscale(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def minibatch_stddev(x: Tensor, most: int = 4) -> Tensor:
    """Appends the mean deviation over strided groups as one map (section 3)."""
    n, c, h, w = x.shape
    group = next(size for size in range(min(most, n), 0, -1) if n % size == 0)
    y = x.view(group, -1, c, h, w)
    y = (y - y.mean(0)).square().mean(0).add(1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, y.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)], 1)


class Generator(nn.Module):
    """`widths`: maps from 4x4 up; with `fading` the old way to an image stands beside the new one."""

    def __init__(self, widths: list[int], colours: int, fading: bool) -> None:
        super().__init__()
        first = widths[0]
        self.dense = Scaled(first, first * 16, gain=2**0.5 / 4, bias=False)
        self.bias = nn.Parameter(torch.zeros(first, 1, 1))
        self.conv = Scaled(first, first, 3)
        self.blocks = nn.ModuleList(nn.ModuleList([Scaled(a, b, 3), Scaled(b, b, 3)]) for a, b in pairwise(widths))
        self.to_image = Scaled(widths[-1], colours, 1, gain=1.0)
        self.old_to_image = Scaled(widths[-2], colours, 1, gain=1.0) if fading else None

    def forward(self, latents: Tensor, alpha: float | None) -> Tensor:
        x = pixel_norm(act(self.dense(pixel_norm(latents)).view(len(latents), -1, 4, 4) + self.bias))
        x = old = pixel_norm(act(self.conv(x)))
        for first, second in self.blocks:
            old, x = x, pixel_norm(act(first(upscale(x))))
            x = pixel_norm(act(second(x)))
        image = self.to_image(x)
        return image if alpha is None else torch.lerp(upscale(self.old_to_image(old)), image, alpha)


class Discriminator(nn.Module):
    def __init__(self, widths: list[int], colours: int, fading: bool) -> None:
        super().__init__()
        first = widths[0]
        self.from_image = Scaled(colours, widths[-1], 1)
        self.old_from_image = Scaled(colours, widths[-2], 1) if fading else None
        self.blocks = nn.ModuleList(
            nn.ModuleList([Scaled(a, a, 3), Scaled(a, b, 3)]) for a, b in pairwise(widths[::-1])
        )
        self.conv = Scaled(first + 1, first, 3)
        self.dense = Scaled(first * 16, first)
        self.score = Scaled(first, 1, gain=1.0)

    def forward(self, images: Tensor, alpha: float | None) -> Tensor:
        x = act(self.from_image(images))
        for index, (first, second) in enumerate(self.blocks):
            x = F.avg_pool2d(act(second(act(first(x)))), 2)
            if index == 0 and alpha is not None:
                x = torch.lerp(act(self.old_from_image(F.avg_pool2d(images, 2))), x, alpha)
        x = act(self.conv(minibatch_stddev(x)))
        return self.score(act(self.dense(x.flatten(1)))).squeeze(1)


def critic_loss(D: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, alpha: float | None) -> Tensor:
    """WGAN with gradient penalty and drift; `mix` (N,): each sample's place between its real and its fake."""
    real_scores, fake_scores = D(real, alpha), D(fake, alpha)
    between = torch.lerp(real, fake, mix.view(-1, 1, 1, 1)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(between, alpha).sum(), between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return fake_scores.mean() - real_scores.mean() + 10 * penalty + 0.001 * real_scores.square().mean()


Contender = tuple[Callable[[], None], list[nn.Parameter], list[nn.Parameter]]


def make(size: int, alpha: float | None, width: Mapping[int, int], batch: int, colours: int) -> Contender:
    """A whole training iteration on noise, and both networks' parameters, on torch's default device.

    Args:
        size: height and width of the images, 4, 8, 16, ...
        alpha: the new layers' share while they fade in; None: they have.
        width: maps at each size from 4 up; there are as many latents as maps at 4.
        batch, colours: images, and channels of each.
    """
    widths = [width[s] for s in sorted(width) if s <= size]
    G, D = (net(widths, colours, alpha is not None) for net in (Generator, Discriminator))
    average = copy.deepcopy(G).requires_grad_(False)
    g_adam, d_adam = (torch.optim.Adam(net.parameters(), 1e-3, (0.0, 0.99), 1e-8) for net in (G, D))
    data = torch.randint(0, 256, (batch, colours, size, size), dtype=torch.uint8)

    def latents() -> Tensor:
        return torch.randn(batch, widths[0], device=data.device)

    def step() -> None:
        real = data.float() / 127.5 - 1
        if alpha is not None:
            real = torch.lerp(upscale(F.avg_pool2d(real, 2)), real, alpha)
        with torch.no_grad():
            fake = G(latents(), alpha)
        d_adam.zero_grad()
        critic_loss(D, real, fake, torch.rand(batch, device=data.device), alpha).backward()
        d_adam.step()
        D.requires_grad_(False)
        g_adam.zero_grad()
        (-D(G(latents(), alpha), alpha).mean()).backward()
        g_adam.step()
        D.requires_grad_(True)
        with torch.no_grad():
            for mean, param in zip(average.parameters(), G.parameters(), strict=True):
                mean.lerp_(param, 1 - 0.999)

    return step, list(G.parameters()), list(D.parameters())
