"""The yardstick: the paper's networks and training iteration in plain eager PyTorch (Karras et al. 2018, appendix A.1).

It shares no code with pggan_kit; tests/benchmarking/test_reference.py checks that losses and gradients are the same.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Scaled(nn.Module):
    """A convolution, or a dense layer where `kernel` is 0, with N(0, 1) weights scaled at run time (section 4.1)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, gain: float = 2**0.5, bias: bool = True) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *(kernel, kernel) if kernel else ()))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = gain * self.weight[0].numel() ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.kernel:
            return F.conv2d(x, weight, self.bias, padding=self.kernel // 2)
        return F.linear(x, weight, self.bias)


def activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def normalise_pixels(x: Tensor) -> Tensor:
    """Bring each pixel's features to a root mean square of 1 (section 4.2)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def upscale(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")


def append_stddev(x: Tensor, most: int = 4) -> Tensor:
    """Append the mean deviation over strided groups of at most `most` samples as one map (section 3)."""
    n, c, h, w = x.shape
    group = next(size for size in range(min(most, n), 0, -1) if n % size == 0)
    y = x.view(group, -1, c, h, w)
    y = (y - y.mean(0)).square().mean(0).add(1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, y.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)], 1)


class Generator(nn.Module):
    """The generator.

    Args:
        widths: Maps at each size, from 4x4 up.
        colours: Channels of the images.
        fading: Whether the old path to an image is kept beside the new one.
    """

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
        # From latents to features of 4x4.
        x = self.dense(normalise_pixels(latents)).view(len(latents), -1, 4, 4)
        x = normalise_pixels(activate(x + self.bias))
        x = normalise_pixels(activate(self.conv(x)))

        # Each block doubles the size; the old path ends before the last one.
        old = x
        for first, second in self.blocks:
            old = x
            x = normalise_pixels(activate(first(upscale(x))))
            x = normalise_pixels(activate(second(x)))

        image = self.to_image(x)
        if alpha is None:
            return image
        old_image = upscale(self.old_to_image(old))
        return torch.lerp(old_image.to(image.dtype), image, alpha)  # autocast enlarges in float32 on some devices


class Discriminator(nn.Module):
    """The discriminator; see `Generator`."""

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
        x = activate(self.from_image(images))
        for index, (first, second) in enumerate(self.blocks):
            x = activate(second(activate(first(x))))
            x = F.avg_pool2d(x, 2)
            # The old path joins behind the newest block.
            if index == 0 and alpha is not None:
                old = activate(self.old_from_image(F.avg_pool2d(images, 2)))
                x = torch.lerp(old.to(x.dtype), x, alpha)

        x = activate(self.conv(append_stddev(x)))
        x = activate(self.dense(x.flatten(1)))
        scores = self.score(x).squeeze(1)
        # Losses stay in float32 under autocast.
        return scores.float() if scores.dtype == torch.bfloat16 else scores


def critic_loss(D: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, alpha: float | None) -> Tensor:
    """Return the loss of WGAN with gradient penalty and drift.

    Args:
        D: The discriminator.
        real, fake: Images (N, C, h, w).
        mix: The place (N,) of each sample between its real and its fake, in [0, 1).
        alpha: The new layers' share while they fade in; None: after the fade.
    """
    real_scores = D(real, alpha)
    fake_scores = D(fake, alpha)
    between = torch.lerp(real, fake, mix.view(-1, 1, 1, 1)).requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(between, alpha).sum(), between, create_graph=True)
    penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return fake_scores.mean() - real_scores.mean() + 10 * penalty + 0.001 * real_scores.square().mean()


Contender = tuple[Callable[[], None], list[nn.Parameter], list[nn.Parameter]]
"""A training iteration, and the parameters of G and of D."""


Precision = Callable[[], contextlib.AbstractContextManager[object]]
"""A function that makes the context of all forward and backward passes of an iteration."""


def make(
    size: int,
    alpha: float | None,
    width: Mapping[int, int],
    batch: int,
    colours: int,
    *,
    autocast: Precision = contextlib.nullcontext,
) -> Contender:
    """Make a whole training iteration on noise, in float32 as published, and both networks, on torch's default device.

    Args:
        size: Height and width of the images, 4, 8, 16, ...
        alpha: The new layers' share while they fade in; None: after the fade.
        width: Maps at each size from 4 up; there are as many latents as maps at 4.
        batch, colours: Images of a batch, and channels of each.
        autocast: What forward passes run in.
    """
    widths = [width[s] for s in sorted(width) if s <= size]
    G = Generator(widths, colours, alpha is not None)
    D = Discriminator(widths, colours, alpha is not None)
    average = copy.deepcopy(G).requires_grad_(False)
    g_adam = torch.optim.Adam(G.parameters(), 1e-3, (0.0, 0.99), 1e-8)
    d_adam = torch.optim.Adam(D.parameters(), 1e-3, (0.0, 0.99), 1e-8)
    data = torch.randint(0, 256, (batch, colours, size, size), dtype=torch.uint8)

    def draw_latents() -> Tensor:
        return torch.randn(batch, widths[0], device=data.device)

    def step() -> None:
        real = data.float() / 127.5 - 1
        if alpha is not None:
            real = torch.lerp(upscale(F.avg_pool2d(real, 2)), real, alpha)

        # Update D.
        with torch.no_grad(), autocast():
            fake = G(draw_latents(), alpha).float()
        d_adam.zero_grad()
        with autocast():
            loss = critic_loss(D, real, fake, torch.rand(batch, device=data.device), alpha)
        loss.backward()
        d_adam.step()

        # Update G, with D held constant.
        D.requires_grad_(False)
        g_adam.zero_grad()
        with autocast():
            loss = -D(G(draw_latents(), alpha), alpha).mean()
        loss.backward()
        g_adam.step()
        D.requires_grad_(True)

        # Update the average of G's weights.
        with torch.no_grad():
            for mean, param in zip(average.parameters(), G.parameters(), strict=True):
                mean.lerp_(param, 1 - 0.999)

    return step, list(G.parameters()), list(D.parameters())


def make_bfloat16(size: int, alpha: float | None, width: Mapping[int, int], batch: int, colours: int) -> Contender:
    """Make the same iteration with forward passes under torch's autocast to bfloat16; see `make`."""
    device_type = torch.get_default_device().type

    def autocast() -> contextlib.AbstractContextManager[object]:
        return torch.autocast(device_type, torch.bfloat16)

    return make(size, alpha, width, batch, colours, autocast=autocast)


def make_tf32(size: int, alpha: float | None, width: Mapping[int, int], batch: int, colours: int) -> Contender:
    """Make the same iteration with float32 convolutions in TensorFloat-32 on a GPU, as PyTorch has it by default."""
    step, g_parameters, d_parameters = make(size, alpha, width, batch, colours)

    def step_in_tf32() -> None:
        with allow_tf32_convolutions():
            step()

    return step_in_tf32, g_parameters, d_parameters


@contextlib.contextmanager
def allow_tf32_convolutions() -> Iterator[None]:
    """Let cuDNN round the inputs of float32 convolutions to TensorFloat-32 in a block."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
