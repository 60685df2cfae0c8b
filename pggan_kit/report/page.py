"""The page's building blocks, and its rendering: one HTML file that needs no network and runs no script."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pggan_kit.errors import UserError
from pggan_kit.pictures.frames import reduced
from pggan_kit.pictures.grid import image_grid
from pggan_kit.report.plots import Draw, rendered

PNG_LIMIT = 150_000
"""Bytes beyond which a colour picture becomes a JPEG: a page is to be mailed."""

CELL = 96
"""Pixels of an image's longer side in a grid, at most."""


@dataclass(frozen=True)
class Figure:
    """A picture in the page.

    Attributes:
        src: a data URI.
        alt: says in words what the picture shows.
        caption: below it.
        width, height: in CSS pixels.
        name: of its file under `--figures`.
        draw: of a plot, which is written there too.
    """

    src: str
    alt: str
    caption: str
    width: int
    height: int
    name: str = ""
    draw: Draw | None = None


@dataclass(frozen=True)
class Table:
    """Rows under a head; the first cell of a row names it. Numbers are shown with four digits, None as a dash."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    name: str = ""

    def numeric(self, place: int) -> bool:
        """Whether a column holds nothing but numbers, which stand to the right."""
        cells = [row[place] for row in self.rows]
        return all(c is None or (isinstance(c, (int, float)) and not isinstance(c, bool)) for c in cells)


@dataclass(frozen=True)
class Group:
    """Figures beside each other. `kind`: `plots` or `pixels`."""

    title: str
    kind: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Block:
    """Text as it stands in a file; `open` or folded away."""

    title: str
    text: str
    open: bool = False


@dataclass
class Section:
    """A part of the page."""

    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but the title."""
        return not (self.tables or self.groups or self.blocks)


def plot(name: str, draw: Draw, alt: str, caption: str) -> Figure:
    """A figure of a plot."""
    content = rendered(draw, "svg")
    found = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', content)
    assert found is not None
    width, height = (round(float(side) * 4 / 3) for side in found.groups())
    return Figure(data_uri(content, "svg+xml"), alt, caption, width, height, file_name(name), draw)


def grid(images: np.ndarray, columns: int, alt: str, caption: str, cell: int = CELL) -> Figure:
    """A figure of images uint8 (N, h, w, C); those larger than `cell` are reduced by averaging."""
    height, width = images.shape[1:3]
    if max(height, width) > cell:
        shrink = max(height, width) / cell
        size = max(1, round(height / shrink)), max(1, round(width / shrink))
        images = np.stack([reduced(image, size) for image in images])
    picture = image_grid(images, columns, min(56, cell))
    return Figure(encoded(picture), alt, caption, *picture.size)


def animation(content: bytes, alt: str, caption: str) -> Figure:
    """A figure of a GIF."""
    with Image.open(io.BytesIO(content)) as picture:
        return Figure(data_uri(content, "gif"), alt, caption, *picture.size)


def encoded(picture: Image.Image) -> str:
    """A data URI of it: PNG, or JPEG where that would be large."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    if picture.mode == "RGB" and buffer.tell() > PNG_LIMIT:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        return data_uri(buffer.getvalue(), "jpeg")
    return data_uri(buffer.getvalue(), "png")


def data_uri(content: bytes, kind: str) -> str:
    """`data:image/<kind>;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def file_name(text: str) -> str:
    """Letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower()


def shown(value: Any) -> str:
    """A table's cell as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def render(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as text. Everything that comes from files is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pggan_kit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    filled = [section for section in sections if not section.empty]
    return environment.get_template("page.html").render(title=title, lead=lead, sections=filled)


def require_libraries() -> None:
    """Check that what the report needs is installed.

    Raises:
        UserError: it is not; the message says how to install it.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"a report needs {error.name}: pip install 'pggan_kit[report]'") from None
