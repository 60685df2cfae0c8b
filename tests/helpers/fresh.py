"""A virtual environment of a test's own, made without a network."""

import site
import subprocess
import sys
from pathlib import Path

from helpers.patience import PATIENCE_SECONDS


def fresh_python(folder: Path) -> Path:
    """The Python of a new virtual environment that sees this one's packages, and of itself has none."""
    command = [sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(folder / "fresh")]
    subprocess.run(command, check=True, timeout=PATIENCE_SECONDS)
    packages = next((folder / "fresh" / "lib").glob("python*")) / "site-packages"
    # Where this is itself a virtual environment, --system-site-packages means those of the Python below it.
    here = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (packages / "outer.pth").write_text(here)
    return folder / "fresh" / "bin" / "python"
