"""Architectures: networks that grow, one stage's modules at a time."""

from pggan_kit import Component, hookimpl
from pggan_plugins.architectures.pggan import PGGAN
from pggan_plugins.architectures.r3gan import R3GAN
from pggan_plugins.architectures.resnet import ResNet
from pggan_plugins.architectures.skip import SkipPGGAN
from pggan_plugins.architectures.stylegan2 import StyleGAN2
from pggan_plugins.architectures.tutorial import Tutorial

__all__ = ["PGGAN", "R3GAN", "ResNet", "SkipPGGAN", "StyleGAN2", "Tutorial"]


@hookimpl
def components() -> list[Component]:
    """Return the architectures of this folder."""
    classes = (PGGAN, R3GAN, ResNet, SkipPGGAN, StyleGAN2, Tutorial)
    return [Component("architectures", cls.__name__, cls) for cls in classes]
