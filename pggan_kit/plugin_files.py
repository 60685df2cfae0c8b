"""Plugin files: Python that runs because its path was given, and again only if it is still the same.

A run directory remembers paths and SHA-256 of the plugin files it used. The directory may come from somebody else, and
then so may the file that it points to. So a remembered file runs only if a file of that content was once named by hand
on this machine, which is noted in the cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from pggan_kit.data import DataSettings
from pggan_kit.errors import PluginError

TRUSTED = "trusted_plugins"
"""The file in the cache folder: one SHA-256 a line."""


def load_file(path: Path, sha256: str | None = None) -> tuple[ModuleType, str]:
    """Run a plugin file.

    Args:
        path: the file.
        sha256: what a run remembers of it. None: it was named by hand, and is trusted from now on.

    Returns:
        The module, and the SHA-256 of what ran.

    Raises:
        PluginError: it is gone, has changed, was never named by hand, or cannot be imported; then nothing of it ran,
            unless it is the last.
    """
    content = _content(path, remembered=sha256 is not None)
    digest = hashlib.sha256(content).hexdigest()
    if sha256 is not None and digest != sha256:
        raise PluginError(
            f"the plugin file {path} has changed since the run used it (its SHA-256 was {_short(sha256)} and is "
            f"{_short(digest)}); bring the old one back, or name it to go on with the new one: --plugin {path}"
        )
    if sha256 is not None and digest not in _trusted():
        raise PluginError(
            f"the run used the plugin file {path}, which was never named on this machine: a plugin is code and can do "
            f"anything. Read it; if you trust it, name it: --plugin {path}"
        )
    spec = importlib.util.spec_from_file_location(f"pggan_kit_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or path.suffix != ".py":
        raise PluginError(f"--plugin {path}: a plugin file is Python and ends in .py")
    if sha256 is None:
        _trust(digest)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # What was hashed runs, and neither what the file holds by now nor a cached .pyc.
    imported(lambda: exec(compile(content, str(path), "exec"), vars(module)), str(path), "mend it, or run without it")
    return module, digest


def imported(action: Callable[[], Any], name: str, remedy: str) -> Any:
    """What an import gives.

    Raises:
        PluginError: it fails; the message has the plugin's name and the remedy.
    """
    try:
        return action()
    except (Exception, SystemExit) as error:
        raise PluginError(f"plugin {name} cannot be imported: {type(error).__name__}: {error}; {remedy}") from error


def _content(path: Path, remembered: bool) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        gone = isinstance(error, FileNotFoundError)
        if remembered:
            what = "is gone" if gone else f"cannot be read ({error})"
            raise PluginError(f"the run used the plugin file {path}, which {what}; name it with --plugin") from None
        what = "no such file" if gone else f"cannot be read ({getattr(error, 'strerror', error)})"
        raise PluginError(f"--plugin {path}: {what}") from None


def _list() -> Path:
    return DataSettings().cache_folder() / TRUSTED


def _trusted() -> set[str]:
    try:
        return set(_list().read_text().split())
    except (OSError, UnicodeDecodeError):
        return set()


def _trust(digest: str) -> None:
    """Where the cache cannot be written, the file has to be named each time."""
    if digest in _trusted():
        return
    with suppress(OSError):
        path = _list()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a") as file:
            file.write(f"{digest}\n")


def _short(sha256: str) -> str:
    return "".join(character for character in sha256[:12] if character.isalnum())
