"""Features of images, for metrics."""

from pggan_kit import Component, hookimpl


@hookimpl
def components() -> list[Component]:
    """The features of this folder."""
    return []
