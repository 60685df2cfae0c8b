"""Refuse a tag that the sources do not agree with: `python scripts/check_release.py v1.2.3`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def find_problems(tag: str, root: Path = ROOT) -> list[str]:
    """Return what speaks against releasing a tag, a sentence each; nothing where it may be released."""
    match = re.search(r'__version__ = "(.+)"', (root / "pggan_kit/version.py").read_text(encoding="utf-8"))
    assert match is not None
    version = match[1]
    problems = []
    if tag != f"v{version}":
        problems.append(f"the tag is {tag}, and pggan_kit/version.py says {version}: tag v{version}, or change that")
    if f"\nversion: {version}\n" not in (root / "CITATION.cff").read_text(encoding="utf-8"):
        problems.append(f"CITATION.cff has another version than {version}")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", _read_changelog(root), re.MULTILINE):
        problems.append(f"CHANGELOG.md has no heading `## {version} (YEAR-MONTH-DAY)`")
    return problems


def _read_changelog(root: Path) -> str:
    return (root / "CHANGELOG.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    found = find_problems(sys.argv[1])
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)
