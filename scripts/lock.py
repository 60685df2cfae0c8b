"""Write requirements-locked.txt: `python scripts/lock.py UV`, UV the command of uv; `make lock` calls it.

The lock holds the versions of constraints.txt and all that they require, for every system and Python that setup.cfg
allows and for every extra, with the hashes of the files in the public registry. That is torch as the registry has it,
for Linux with CUDA. The wheels for CPUs that pytorch.org has are other files with other hashes.
"""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements-locked.txt"
HEADER = """\
# Made by `make lock` of setup.cfg and constraints.txt: do not edit. For an environment of exactly these files:
#     pip install --require-hashes --requirement requirements-locked.txt && pip install --no-deps .
"""
OPTIONS = ["--universal", "--python-version", "3.10", "--generate-hashes", "--no-annotate"]


def main(uv: str) -> None:
    """Resolve the lock, and write it once it is whole."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = [f"--extra={name}" for name in setup["options.extras_require"]]
    constraints = ["--constraint", "constraints.txt"]
    command = [uv, "pip", "compile", "--quiet", "--no-header", *OPTIONS, *extras, *constraints, "setup.cfg"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    LOCK.write_text(HEADER + done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
