"""The command line: thin commands over the Python API. A module here adds its commands when it is imported.

No module here imports torch, or a module that does, before a command runs: `--help` answers at once.
"""

from pggan_kit.cli import (
    ablate,
    average,
    bench,
    config,
    data,
    evaluate,
    explore,
    export,
    import_weights,
    interpolate,
    neighbours,
    plan,
    plugins,
    report,
    sample,
    strip,
    sweep,
    train,
)
from pggan_kit.cli.base import main

__all__ = [
    "ablate",
    "average",
    "bench",
    "config",
    "data",
    "evaluate",
    "explore",
    "export",
    "import_weights",
    "interpolate",
    "main",
    "neighbours",
    "plan",
    "plugins",
    "report",
    "sample",
    "strip",
    "sweep",
    "train",
]
