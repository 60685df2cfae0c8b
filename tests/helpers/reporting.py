"""What tests of reports share: two tiny runs, and a look at a page as a browser's parser sees it."""

from __future__ import annotations

import base64
import binascii
import io
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from conftest import STUB, TINY
from PIL import Image
from torch import Tensor

from pggan_kit import hookimpl
from pggan_kit.api.train import train

OBSERVED = """\
train.observers = [@observers.Samples(), @observers.TransitionShock()]
observers.Samples.count = 9
observers.TransitionShock.count = 4
"""


class Grown:
    """Keeps what the average draws of the fixed latents right after each growth."""

    def __init__(self) -> None:
        self.images: dict[int, Tensor] = {}

    @hookimpl
    def before_stage(self, run: Any, stage: Any) -> None:
        self.images[stage.index] = run.generate(latents(run.experiment.latent_size))


def latents(size: int) -> Tensor:
    return torch.randn(4, size, generator=torch.Generator().manual_seed(5))


def train_pair(folder: Path) -> dict[str, dict[int, Tensor]]:
    """Trains the runs `soft` and `hard` in a folder; what each drew right after its growths, by stage."""
    (folder / "tiny.gin").write_text(TINY + OBSERVED)
    before, grown = Path.cwd(), {"soft": Grown(), "hard": Grown()}
    os.chdir(folder)
    try:
        for name, switch in (("soft", "Linear"), ("hard", "Hard")):
            binding = f"train.switch = @switches.{switch}()"
            train("tiny.gin", [binding], run_dir=name, plugins=[str(STUB), grown[name]])
    finally:
        os.chdir(before)
    return {name: part.images for name, part in grown.items()}


class Page(HTMLParser):
    """What a page holds.

    Attributes:
        tags: of all elements.
        images: attributes of each `img`.
        addresses: values of all attributes that a browser would follow.
        texts: all text.
        handlers: attributes that would run a script.
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
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        followed = ("src", "href", "srcset", "action", "data", "poster", "background", "formaction")
        self.addresses += [found[name] for name in followed if name in found]
        self.handlers += [name for name in found if name.startswith("on")]
        if tag == "img":
            self.images.append(found)
        if tag not in ("img", "meta", "br", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def require_self_contained(self) -> None:
        """Fail unless the page asks for nothing, runs nothing, and each image is whole and has words."""
        assert self.images
        assert not {"script", "link", "iframe", "object", "embed", "form"} & set(self.tags)
        assert self.handlers == []
        assert all(address.startswith("data:image/") for address in self.addresses)
        for image in self.images:
            assert len(image["alt"]) > 20, image["alt"]
            require_whole(image["src"])


def require_whole(uri: str) -> None:
    """Fail unless an image's data URI decodes to the image that it says it is."""
    head, _, body = uri.partition(",")
    kind = head.removeprefix("data:image/").removesuffix(";base64")
    try:
        content = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise AssertionError(f"{head} does not decode") from error
    if kind == "svg+xml":
        root = ElementTree.fromstring(content)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [e for e in root.iter() if e.tag.endswith(("script", "image", "foreignObject"))]
    else:
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.format == kind.upper()
            picture.load()
