"""Build the pages of the checkout and of released versions beside them: `make docs-versions` calls it.

The checkout's pages are in docs/_build, those of a tag v1.2.3 in docs/_build/v1.2.3, and docs/_build/versions.html
lists both. Each tag is built by its own `make docs`, in an environment of its own. Needs the tags: `git fetch --tags`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

KEPT = 5
"""Maximum number of released versions, the newest, whose pages are built: each takes minutes."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Versions of the pages</title>
<h1>Versions of the pages</h1>
<ul>
{rows}
</ul>
</html>
"""


def main(root: Path = ROOT) -> None:
    """Build all versions, and the page that lists them."""
    build = root / "docs/_build"
    shutil.rmtree(build, ignore_errors=True)
    run_make(root, "versions.html")

    tags = list_tags(root)
    for tag in tags:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / tag
            subprocess.run(["git", "worktree", "add", "--detach", str(tree), tag], cwd=root, check=True)
            try:
                run_make(tree, "../versions.html")
                shutil.copytree(tree / "docs/_build", build / tag)
            finally:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=True)

    links = [("index.html", "newest, unreleased"), *((f"{tag}/index.html", tag) for tag in tags)]
    rows = "\n".join(f'<li><a href="{file}">{name}</a></li>' for file, name in links)
    (build / "versions.html").write_text(PAGE.format(rows=rows), encoding="utf-8")


def run_make(tree: Path, versions_page: str) -> None:
    """Build the pages of a tree, each with a link to the page of versions, which is given from the pages' root."""
    environment = {**os.environ, "DOCS_VERSIONS": versions_page}
    subprocess.run(["make", "docs"], cwd=tree, env=environment, check=True)


def list_tags(root: Path) -> list[str]:
    """Return the tags of the newest released versions, the newest first."""
    done = subprocess.run(["git", "tag", "--list", "v*"], cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    released = [tag for tag in done.stdout.split() if re.fullmatch(r"v\d+\.\d+\.\d+", tag)]
    released.sort(key=lambda tag: [int(number) for number in tag[1:].split(".")], reverse=True)
    return released[:KEPT]


if __name__ == "__main__":
    main()
