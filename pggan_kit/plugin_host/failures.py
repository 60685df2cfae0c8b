"""Say where an exception arose that nobody foresaw: in which component, and in which line of a plugin."""

from __future__ import annotations

import importlib.metadata
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pggan_kit.errors import FORESEEN, UnforeseenError, first_line
from pggan_kit.plugin_host.loading import GROUP, Row
from pggan_kit.plugin_host.plugin_files import MODULE_PREFIX
from pggan_kit.system import distributed

Components = Mapping[str, tuple[Row, Any]]
"""The chosen components by their path in the experiment, each with its row."""


@contextmanager
def explain_unforeseen(activity: str, components: Components) -> Iterator[None]:
    """Turn what nobody foresaw in a block into an error that says where it arose.

    Args:
        activity: What the block does, for the message: `reading the data set`.
        components: The components that the block uses.

    Raises:
        UnforeseenError: The block raised an exception that is no message for users.
    """
    try:
        yield
    except FORESEEN:
        raise
    except Exception as error:
        raise UnforeseenError(f"{activity} failed{describe_failure(error, components)}") from error


def describe_failure(error: BaseException, components: Components | None = None) -> str:
    """Return ` in train.loss (losses.Mine), mine.py:12: ValueError: MESSAGE`, as far as the place is known.

    Args:
        error: The exception, with its traceback.
        components: The components that may have raised it; None where they are not known.
    """
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    frames.reverse()  # the innermost first

    # The component first, which a config names, and then the code.
    places = []
    component = _find_component([frame for frame, _ in frames], components or {})
    if component is not None:
        places.append(component)
    code = _find_code(frames)
    if code is not None:
        places.append(code)
    place = f" in {', '.join(places)}" if places else ""
    if distributed.world_size() > 1:
        place += f" on process {distributed.rank()} of {distributed.world_size()}"
    name = type(error).__name__
    message = first_line(error)
    return f"{place}: {name}" if message == name else f"{place}: {name}: {message}"


def name_component(component: object, components: Components) -> str:
    """Return the path and selector of a chosen component, `train.loss (losses.Mine)`, or else its class."""
    for path, (row, chosen) in components.items():
        if chosen is component:
            return f"{path} ({row.selector})"
    return type(component).__qualname__


def find_failed_component(error: BaseException, components: Components) -> str | None:
    """Return the path and selector of the innermost component in whose code an exception arose; None if in none."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return _find_component(frames[::-1], components)


def _find_component(frames: list[FrameType], components: Components) -> str | None:
    """Return the path and selector of the innermost component in whose code an exception passed; None if in none."""
    paths = {id(component): path for path, (_, component) in components.items()}
    for frame in frames:
        path = paths.get(id(frame.f_locals.get("self")))
        if path is not None:
            return f"{path} ({components[path][0].selector})"

        # Code that a component brought along, such as the blocks of an architecture.
        brought = _list_components_of(str(frame.f_globals.get("__name__")), components)
        selectors = {components[path][0].selector for path in brought}
        if len(brought) == 1:
            return f"{brought[0]} ({selectors.pop()})"
        if len(selectors) == 1:
            return selectors.pop()
    return None


def _list_components_of(module: str, components: Components) -> list[str]:
    """Return the paths of the components whose class is in a module, or else those whose plugin it belongs to."""
    by_class = []
    by_plugin = []
    for path, (row, component) in components.items():
        plugin = getattr(row.plugin.object, "__name__", None)
        if type(component).__module__ == module:
            by_class.append(path)
        elif plugin is not None and f"{module}.".startswith(f"{plugin}."):
            by_plugin.append(path)
    return by_class or by_plugin


def _find_code(frames: list[tuple[FrameType, int]]) -> str | None:
    """Return file and line of the innermost code of a plugin; None where there is none."""
    packages = {entry.module.partition(".")[0] for entry in importlib.metadata.entry_points(group=GROUP)}
    for frame, line in frames:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(MODULE_PREFIX) or module.partition(".")[0] in packages:
            return f"{Path(frame.f_code.co_filename).name}:{line}"
    return None
