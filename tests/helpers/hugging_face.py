"""A stand-in for the library `datasets`, which the tests do not install."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping
from typing import Any

import pytest


class Rows:
    """The methods of a `datasets.Dataset` that the plugin uses.

    Args:
        cells: Cells of the column `image`, as the library gives them undecoded.
        labels: Entries of the column `label`.
    """

    _fingerprint = "abc"

    def __init__(self, cells: list[Any], labels: list[int]) -> None:
        self.cells = cells
        self.labels = labels
        self.features: dict[str, Any] = {"label": types.SimpleNamespace(num_classes=None)}
        self.column_names = ["image", "label"]
        self.decoded = True

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, key: Any) -> Any:
        if key == "label":
            return self.labels
        assert not self.decoded or "image" in self.features, "the library would decode without a limit"
        return {"image": self.cells[key]}

    def select_columns(self, names: list[str]) -> Rows:
        assert names == ["image"]
        return self

    def with_format(self, kind: str) -> Rows:
        assert kind == "numpy" and "image" in self.features
        return self

    def cast_column(self, name: str, feature: Any) -> Rows:
        assert (name, feature) == ("image", ("Image", False))
        self.decoded = False
        return self


def install_library(monkeypatch: pytest.MonkeyPatch, sets: Mapping[str, Rows]) -> None:
    """Let `import datasets` give a library that loads these data sets, split `train`."""

    def load_dataset(path: str, split: str) -> Rows:
        if path not in sets:
            raise FileNotFoundError("no such data set")
        assert split == "train"
        return sets[path]

    library = types.ModuleType("datasets")
    library.load_dataset = load_dataset  # type: ignore[attr-defined]
    library.Image = lambda decode: ("Image", decode)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", library)
