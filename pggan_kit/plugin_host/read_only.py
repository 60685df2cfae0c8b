"""Dicts that hooks are given to read: what they write there would reach nobody."""

from __future__ import annotations

from typing import Any, NoReturn


class ReadOnlyDict(dict[str, Any]):
    """A dict that refuses every change, with a message that says where numbers of one's own go."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse a change.

        Raises:
            TypeError: Always.
        """
        raise TypeError("what a hook is given cannot be changed: return numbers of your own from the hook measure_tick")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse
