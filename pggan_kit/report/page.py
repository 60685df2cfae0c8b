"""The page's building blocks, and its rendering: one HTML file that needs no network.

The page is complete without JavaScript; where it has tables of many rows, a script of its own sorts and filters them.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from pggan_kit.errors import UserError, first_line
from pggan_kit.pictures.decoding import open_picture
from pggan_kit.pictures.frames import reduce_image
from pggan_kit.pictures.grid import image_grid
from pggan_kit.report.plots import Draw, render_plot

PNG_LIMIT = 150_000
"""Bytes beyond which a colour picture becomes a JPEG, since a page is to be mailed."""

CELL = 96
"""Maximum of an image's longer side in a grid, in pixels."""

SMALLEST_CELL = 56
"""Pixels up to which small images in a grid are enlarged."""

LONG_TABLE = 12
"""Rows from which on a table can be sorted and filtered."""

PIXELS_PER_POINT = 4 / 3
"""CSS pixels in a point, the unit of Matplotlib's SVGs."""


@dataclass(frozen=True)
class Figure:
    """A picture in the page.

    Attributes:
        src: Data URI of the picture.
        alt: Text that says in words what the picture shows.
        caption: Text below the picture.
        width, height: Size in CSS pixels.
        name: Stem of its file under `--figures`.
        draw: Function that draws it again, for a plot, which is written there too.
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
    """Rows under a head; the first cell of a row names it. Numbers are shown with four digits, None as a dash.

    Attributes:
        head: Names of the columns.
        rows: Cells of each row.
        name: Stem of its file under `--figures`, which only a table with a name has.
        best: Places (row, column) of the cells that are the best of their column, and stand out.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    name: str = ""
    best: Collection[tuple[int, int]] = ()

    @property
    def is_long(self) -> bool:
        """Whether the page offers to sort and filter the rows."""
        return len(self.rows) >= LONG_TABLE

    def find_numeric_columns(self) -> list[bool]:
        """Return for each column whether it holds nothing but numbers, which are aligned to the right."""
        return [all(map(_is_number, column)) for column in self._list_columns()]

    def _list_columns(self) -> list[list[Any]]:
        return [[row[place] for row in self.rows] for place in range(len(self.head))]


def _is_number(cell: object) -> bool:
    return isinstance(cell, (int, float, type(None))) and not isinstance(cell, bool)


@dataclass(frozen=True)
class Group:
    """Figures beside each other, of the kind `plots` or `pixels`."""

    title: str
    kind: str
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Block:
    """Text as it stands in a file, open or folded away."""

    title: str
    text: str
    open: bool = False


@dataclass
class Section:
    """A section of the page."""

    title: str
    texts: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show but the title and texts."""
        return not (self.tables or self.groups or self.blocks)


def make_plot(name: str, draw: Draw, alt: str, caption: str) -> Figure:
    """Return a figure of a plot."""
    content = render_plot(draw, "svg")
    size = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', content)
    assert size is not None
    width, height = (round(float(side) * PIXELS_PER_POINT) for side in size.groups())
    return Figure(make_data_uri(content, "svg+xml"), alt, caption, width, height, make_file_stem(name), draw)


def make_grid(images: np.ndarray, columns: int, alt: str, caption: str, cell: int = CELL) -> Figure:
    """Return a figure of images uint8 (N, h, w, C); those larger than `cell` are reduced by averaging."""
    height, width = images.shape[1:3]
    longer = max(height, width)
    if longer > cell:
        shrink = longer / cell
        size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
        images = np.stack([reduce_image(image, size) for image in images])
    picture = image_grid(images, columns, min(SMALLEST_CELL, cell))
    return Figure(encode_picture(picture), alt, caption, *picture.size)


def make_sheet(picture: Image.Image, alt: str, caption: str) -> Figure:
    """Return a figure of a picture as it is."""
    return Figure(encode_picture(picture), alt, caption, *picture.size)


def make_animation(content: bytes, alt: str, caption: str) -> Figure:
    """Return a figure of a GIF."""
    with open_picture(io.BytesIO(content), formats=("GIF",)) as picture:
        return Figure(make_data_uri(content, "gif"), alt, caption, *picture.size)


def encode_picture(picture: Image.Image) -> str:
    """Return a picture's data URI: PNG, or JPEG where a colour picture would be large."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    if picture.mode == "RGB" and buffer.tell() > PNG_LIMIT:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        return make_data_uri(buffer.getvalue(), "jpeg")
    return make_data_uri(buffer.getvalue(), "png")


def make_data_uri(content: bytes, kind: str) -> str:
    """Return `data:image/<kind>;base64,...`."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def make_file_stem(text: str) -> str:
    """Return a text as lower-case letters and digits, of any script, and dashes."""
    return re.sub(r"[\W_]+", "-", text).strip("-").lower()


def format_cell(value: Any) -> str:
    """Return a table's cell as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the page as text; everything that comes from files is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("pggan_kit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["format_cell"] = format_cell

    # A section without content would be a title above nothing.
    filled = [section for section in sections if not section.empty]

    # The page's policy lets this script run and no other.
    script = ""
    if any(table.is_long for section in filled for table in section.tables):
        assert environment.loader is not None
        script, _, _ = environment.loader.get_source(environment, "tables.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        title=title, lead=lead, sections=filled, script=script, script_hash=f"sha256-{digest}"
    )


def require_libraries() -> None:
    """Check that the libraries that a report needs are installed.

    Raises:
        UserError: A library is missing; the message says how to install it.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError(f"a report needs {error.name}: pip install 'pggan_kit[report]'") from None
    except (OSError, RuntimeError) as error:  # without a home folder, or one that it can write to
        raise UserError(
            f"a report needs matplotlib, which cannot be imported ({first_line(error)}): set MPLCONFIGDIR to a folder "
            "that can be written"
        ) from None
