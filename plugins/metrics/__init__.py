"""How far fakes are from reals."""

from pggan_kit import Component, hookimpl


@hookimpl
def components() -> list[Component]:
    """The metrics of this folder."""
    return []
