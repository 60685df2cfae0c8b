"""Sphinx' settings, and the two references that are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.python import PythonLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  (it lies beside this file)

project = "pggan_kit"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pggan_kit"
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]


def setup(app: Sphinx) -> None:
    """Write the references before the sources are read; colour gin as the Python that it looks like."""
    app.add_lexer("gin", PythonLexer)
    reference.write(HERE / "reference")
