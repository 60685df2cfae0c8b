"""Networks that grow, one stage's pieces at a time."""

from pggan_kit import Component, hookimpl
from pggan_plugins.architectures.pggan import PGGAN
from pggan_plugins.architectures.resnet import ResNet
from pggan_plugins.architectures.stylegan2 import StyleGAN2
from pggan_plugins.architectures.tutorial import Tutorial

__all__ = ["PGGAN", "ResNet", "StyleGAN2", "Tutorial"]


@hookimpl
def components() -> list[Component]:
    """The architectures of this folder."""
    return [Component("architectures", cls.__name__, cls) for cls in (PGGAN, ResNet, StyleGAN2, Tutorial)]
