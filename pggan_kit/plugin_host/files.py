"""Plugin files: Python that runs because its path was given, and again only if it is still the same.

`run.json` and `plan.json` record the paths and SHA-256 of plugin files. They may come from somebody else, and then so
may the files that they point to. So what a caller names and what a file on the disk records have different types: a
path is trusted, a `RecordedFile` runs only with the recorded content, and only if a file of that content was once named
by hand on this machine, which is noted in the cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pggan_kit.errors import PluginError
from pggan_kit.system.cache import cache_folder

TRUSTED = "trusted_plugins"
"""The file in the cache folder: one SHA-256 a line."""

SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class RecordedFile:
    """A plugin file that a file on the disk names: it must have the content that is recorded there.

    Attributes:
        path: absolute, so that it leads to the same file from every working directory.
        sha256: of its content.
        record: the file that names it, for errors.
        change: what to do where its content is another one, for errors.
        named: whether whoever runs this process named the file too. One that was not named runs only if a file of its
            content was named on this machine before.

    Raises:
        PluginError: the path is relative, or the SHA-256 is none.
    """

    path: Path
    sha256: str
    record: Path
    change: str
    named: bool = False

    def __post_init__(self) -> None:
        if not self.path.is_absolute():
            raise PluginError(
                f"{self.record} names the plugin file {self.path} by a relative path, which leads to another file from "
                "each working directory. Read the file; if you trust it, name it: --plugin FILE"
            )
        if not isinstance(self.sha256, str) or not SHA256.fullmatch(self.sha256):
            raise PluginError(
                f"{self.record} names the plugin file {self.path} without its SHA-256 (64 digits from 0 to f; there is "
                f"{repr(self.sha256)[:80]}). Read the file; if you trust it, name it: --plugin {self.path}"
            )


def load_file(file: Path | RecordedFile) -> tuple[ModuleType, str]:
    """Run a plugin file.

    Args:
        file: the path that whoever runs this named: its content is trusted from now on. Or what a file on the disk
            records.

    Returns:
        The module, and the SHA-256 of what ran.

    Raises:
        PluginError: it is gone, has changed, was never named by hand, or cannot be imported; then nothing of it ran,
            unless it is the last.
    """
    recorded = file if isinstance(file, RecordedFile) else None
    path = file.path if isinstance(file, RecordedFile) else file
    named = recorded is None or recorded.named
    content = _content(path, recorded)
    digest = hashlib.sha256(content).hexdigest()

    if recorded is not None and digest != recorded.sha256:
        raise PluginError(
            f"the plugin file {path} has changed since {recorded.record} recorded it (its SHA-256 was "
            f"{recorded.sha256[:12]} and is {digest[:12]}); bring the old one back, or {recorded.change}"
        )
    if recorded is not None and not named and digest not in trusted():
        raise PluginError(
            f"{recorded.record} names the plugin file {path}, whose content was never named on this machine: a plugin "
            f"is code and can do anything. Read it; if you trust it, name it: --plugin {path}"
        )

    spec = importlib.util.spec_from_file_location(f"pggan_kit_plugin_{path.stem}", path)
    if spec is None or spec.loader is None or path.suffix != ".py":
        raise PluginError(f"--plugin {path}: a plugin file is Python and ends in .py")
    if named:
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


def _content(path: Path, recorded: RecordedFile | None) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        gone = isinstance(error, FileNotFoundError)
        if recorded is not None:
            what = "is gone" if gone else f"cannot be read ({error})"
            raise PluginError(
                f"{recorded.record} names the plugin file {path}, which {what}; bring it back, or {recorded.change}"
            ) from None
        what = "no such file" if gone else f"cannot be read ({getattr(error, 'strerror', error)})"
        raise PluginError(f"--plugin {path}: {what}") from None


def _list() -> Path:
    return cache_folder() / TRUSTED


def trusted() -> set[str]:
    """Return the SHA-256 of all plugin files that were named on this machine."""
    try:
        lines = _list().read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return set()
    return {line for line in lines if SHA256.fullmatch(line)}


def _trust(digest: str) -> None:
    """Where the cache cannot be written, the file has to be named each time."""
    if digest in trusted():
        return
    with suppress(OSError):
        path = _list()
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "a") as file:
            file.write(f"{digest}\n")
