"""Configure Sphinx, and make the three references from the code before it reads the pages."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pygments.lexers.python import PythonLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  (it is beside this file)

from pggan_kit.version import __version__  # noqa: E402

project = "pggan_kit"
version = __version__
copyright = "2026, the pggan_kit authors"
extensions = ["myst_parser"]
exclude_patterns = ["_build", "_templates"]
html_theme = "furo"
html_title = f"pggan_kit {__version__}"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["gallery.css"]
html_context = {"versions_page": os.environ.get("DOCS_VERSIONS")}
# The theme's own, with a link to other versions below the search.
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/versions.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
        "sidebar/variant-selector.html",
    ]
}
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]


def setup(app: Sphinx) -> None:
    """Write the references before the pages are read, and highlight gin like Python, whose syntax it shares."""
    app.add_lexer("gin", PythonLexer)
    reference.write(HERE / "reference")
