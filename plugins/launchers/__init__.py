"""Where trials run."""

from pggan_kit import Component, hookimpl


@hookimpl
def components() -> list[Component]:
    """The launchers of this folder."""
    return []
