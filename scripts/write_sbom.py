"""Write build/sbom.json: `python scripts/write_sbom.py CYCLONEDX`, CYCLONEDX the command of cyclonedx-py.

`make sbom` calls it. The bill of materials lists what requirements-locked.txt has, with hashes, as parts of this
package. A distribution of which other Pythons get another version is listed once for each, with its condition in the
description. What requires what is not in it, of which the tool warns.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "build/sbom.json"


def main(cyclonedx: str) -> None:
    """Write the bill of materials, which the command checks against the schema of CycloneDX."""
    FILE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subject = Path(folder) / "pyproject.toml"
        subject.write_text(describe_subject(), encoding="utf-8")
        options = ["--pyproject", str(subject), "--mc-type", "library", "--output-reproducible", "--validate"]
        command = [cyclonedx, "requirements", "requirements-locked.txt", *options, "--output-file", str(FILE)]
        subprocess.run(command, cwd=ROOT, check=True)


def describe_subject() -> str:
    """Return what the bill is of, as a project table: the tool does not read setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    match = re.search(r'__version__ = "(.+)"', (ROOT / "pggan_kit/version.py").read_text(encoding="utf-8"))
    assert match is not None
    lines = ["[project]", f"version = {json.dumps(match[1], allow_nan=False)}"]
    for key in ("name", "description", "license"):
        lines.append(f"{key} = {json.dumps(setup['metadata'][key], allow_nan=False)}")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main(sys.argv[1])
