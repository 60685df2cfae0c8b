"""Helpers of the tests of reports: two tiny runs, and a page as a browser's parser sees it."""

from __future__ import annotations

import base64
import binascii
import io
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from conftest import STUB, TINY
from PIL import Image
from torch import Tensor

from pggan_kit import hookimpl, report
from pggan_kit.api.train import train
from pggan_kit.report import page, run_pictures

OBSERVED = """\
train.observers = [@observers.Samples(), @observers.TransitionShock(), @observers.Coherence()]
observers.Coherence.count = 4
observers.Samples.count = 9
observers.TransitionShock.count = 4
"""
"""Configuration of the observers whose files a report shows."""

FOLLOWED = ("src", "href", "srcset", "action", "data", "poster", "background", "formaction")
"""Attributes whose addresses a browser follows."""

VOID = ("img", "meta", "br", "link")
"""Elements without an end tag."""


EMPTY_PLOT = b'<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt"/>'
"""A plot without anything."""


def leave_out_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let plots of the page be empty: drawing a dozen takes seconds, in tests that look at something else."""
    monkeypatch.setattr(page, "render_plot", lambda draw, form: EMPTY_PLOT)


def leave_out_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the files of `--figures` be empty, where a test looks at their names: a PDF takes twice as long as a plot."""
    monkeypatch.setattr(report, "render_plot", lambda draw, form, size: b"")


def draw_few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports draw 4 images of a stage and 2 of each of three alphas, in tests that do not look at pictures."""
    monkeypatch.setattr(run_pictures, "GRID", 4)
    monkeypatch.setattr(run_pictures, "STRIP", 2)
    monkeypatch.setattr(run_pictures, "ALPHAS", (0.0, 0.5, 1.0))


class GrowthRecorder:
    """A plugin that keeps images of fixed latents from right after each growth.

    Attributes:
        images: The averaged generator's images by stage.
    """

    def __init__(self) -> None:
        self.images: dict[int, Tensor] = {}

    @hookimpl
    def before_stage(self, run: Any, stage: Any) -> None:
        """Draw and keep the images."""
        self.images[stage.index] = run.generate(draw_latents(run.experiment.latent_size))


def draw_latents(size: int) -> Tensor:
    """Draw the fixed latents."""
    return torch.randn(4, size, generator=torch.Generator().manual_seed(5))


def train_pair(folder: Path) -> dict[str, dict[int, Tensor]]:
    """Train the runs `soft` and `hard` in a folder; return what each drew right after its growths, by stage."""
    (folder / "tiny.gin").write_text(TINY + OBSERVED)
    recorders = {"soft": GrowthRecorder(), "hard": GrowthRecorder()}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for name, switch in (("soft", "Linear"), ("hard", "Hard")):
            binding = f"train.switch = @switches.{switch}()"
            train("tiny.gin", [binding], run_dir=name, plugins=[str(STUB), recorders[name]])
    finally:
        os.chdir(before)
    return {name: recorder.images for name, recorder in recorders.items()}


class Page(HTMLParser):
    """The content of a page.

    Attributes:
        tags: Tags of all elements.
        images: Attributes of each `img`.
        addresses: Values of all attributes that a browser would follow.
        texts: All text.
        handlers: Attributes that would run a script.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.images: list[dict[str, str]] = []
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(file.read_text())
        self.close()
        assert self._open == [], "elements are left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [attributes[name] for name in FOLLOWED if name in attributes]
        self.handlers += [name for name in attributes if name.startswith("on")]
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Require the innermost open element to end."""
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    @property
    def alts(self) -> list[str]:
        """The alternative texts of all images."""
        return [image["alt"] for image in self.images]

    def require_self_contained(self) -> None:
        """Fail unless the page loads nothing, runs nothing, and each image is whole and has an alternative text."""
        assert not {"script", "link", "iframe", "object", "embed", "form"} & set(self.tags)
        assert self.handlers == []
        assert all(address.startswith("data:image/") for address in self.addresses)
        self.require_images()

    def require_images(self) -> None:
        """Fail unless each image is whole and has an alternative text."""
        assert self.images
        for image in self.images:
            assert len(image["alt"]) > 20, image["alt"]
            require_whole(image["src"])


def require_whole(uri: str) -> None:
    """Fail unless an image's data URI decodes to an image of its stated kind."""
    head, _, body = uri.partition(",")
    kind = head.removeprefix("data:image/").removesuffix(";base64")
    try:
        content = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise AssertionError(f"{head} does not decode") from error

    # An SVG may hold neither scripts nor other images.
    if kind == "svg+xml":
        root = ElementTree.fromstring(content)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [element for element in root.iter() if element.tag.endswith(("script", "image", "foreignObject"))]
    else:
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == kind.upper()
            picture.load()
