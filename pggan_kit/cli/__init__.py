"""The command line: thin commands over the Python API. A module here brings its commands by being imported."""

from pggan_kit.cli import looking, plugins, running
from pggan_kit.cli.base import main

__all__ = ["looking", "main", "plugins", "running"]
