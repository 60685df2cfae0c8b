"""Terms on the generator that combine with any loss and any update."""

from pggan_kit import Component, hookimpl
from pggan_plugins.generator_penalties.mode_seeking import ModeSeeking
from pggan_plugins.generator_penalties.path_length import PathLength
from pggan_plugins.generator_penalties.scale_consistency import ScaleConsistency

__all__ = ["ModeSeeking", "PathLength", "ScaleConsistency"]


@hookimpl
def components() -> list[Component]:
    """Return the generator penalties of this folder."""
    return [Component("generator_penalties", cls.__name__, cls) for cls in (PathLength, ModeSeeking, ScaleConsistency)]
