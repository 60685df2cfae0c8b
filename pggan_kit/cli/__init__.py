"""The command line: thin commands over the Python API. A module here brings its commands by being imported."""

from pggan_kit.cli import ablate, bench, evaluate, plugins, report
from pggan_kit.cli import plan as looking
from pggan_kit.cli import train as running
from pggan_kit.cli.base import main

__all__ = ["ablate", "bench", "evaluate", "looking", "main", "plugins", "report", "running"]
