"""Keep a tiny run of the current checkpoint format: `python scripts/keep_format.py`, once for each format released.

tests/formats/FORMAT/ then has the run, stopped in the middle of its fade, and what its generator drew. Later versions
have to resume it (tests/runs/test_formats.py). A folder that is there is never written again.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from helpers.format_runs import FORMATS, LINES, PAUSE, draw  # noqa: E402
from helpers.killing import StopAt  # noqa: E402
from helpers.paths import STUB_PLUGIN  # noqa: E402

import pggan_kit  # noqa: E402
from pggan_kit.errors import Interrupted  # noqa: E402
from pggan_kit.runs.snapshot import FORMAT  # noqa: E402


def main() -> None:
    """Train the run in a folder that names nobody, and keep what resuming needs."""
    target = FORMATS / str(FORMAT)
    if target.exists():
        sys.exit(f"error: {target} exists: a format that was released does not change")
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(platform, "platform", return_value="any"):
        os.chdir(folder)
        shutil.copy(STUB_PLUGIN, "stub_plugin.py")
        Path("tiny.gin").write_text("\n".join(LINES) + "\n", encoding="utf-8")
        with contextlib.suppress(Interrupted):
            pggan_kit.train("tiny.gin", run_dir="run", plugins=["stub_plugin.py", StopAt(PAUSE)])
        generator = pggan_kit.load_generator("run", plugins=["stub_plugin.py"])
        np.savez_compressed("run/drawn.npz", images=draw(generator))
        about = Path("run/run.json")
        about.write_text(about.read_text(encoding="utf-8").replace(os.getcwd(), "/kept"), encoding="utf-8")
        shutil.copytree("run", target, ignore=shutil.ignore_patterns(".lock"))


if __name__ == "__main__":
    main()
