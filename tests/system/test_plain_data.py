"""What may be saved, against torch itself: it gives back what is plain, and the first foreign value is named."""

from __future__ import annotations

import enum
import io
from collections import OrderedDict, namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pggan_kit.system.plain_data import describe_foreign_value
from pggan_kit.testing.support import are_equal

Pair = namedtuple("Pair", "left right")


class Level(enum.IntEnum):
    LOW = 1


PLAIN = {
    "numbers": [1, 2**70, -0.5, float("inf"), True, None],
    "texts": {"a": "b", "": ("c", ["d"])},
    "tensors": {"weight": torch.arange(3), "list": [torch.tensor(1.5), torch.zeros(2, dtype=torch.bfloat16)]},
    "keys": {1: "one", 2.5: "two", (1, "a"): "three", None: 4},
    "an ordered dict": OrderedDict(a=1),
    "a parameter": nn.Parameter(torch.ones(2)),
}

FOREIGN = {
    "a path": ({"folder": Path("a")}, r"^state\['folder'\] is a pathlib\.\w*Path$"),
    "a NumPy number": ({"best": [1.0, np.float64(2.0)]}, r"^state\['best'\]\[1\] is a numpy\.float64$"),
    "a NumPy array": ({"seen": (np.zeros(2),)}, r"^state\['seen'\]\[0\] is a numpy\.ndarray$"),
    "a NumPy text": ({"name": np.str_("x")}, r"is a numpy\.str_$"),
    "a set": ({"seen": {1, 2}}, r"^state\['seen'\] is a set$"),
    "a named tuple": ({"pair": Pair(1, 2)}, r"^state\['pair'\] is a \w+\.Pair$"),
    "an enum": ({"level": Level.LOW}, r"\.Level$"),
    "a function": ({"f": len}, r"^state\['f'\] is a builtin_function_or_method$"),
    "a key": ({"deep": {Path("a"): 1}}, r"^state\['deep'\] has the key .*, which is a pathlib\.\w*Path$"),
    "a key in a tuple": ({(1, np.int64(2)): 1}, r"^state has the key .*, which is a tuple$"),
    "no dict": (np.float32(1.0), r"^state is a numpy\.float32$"),
}


@pytest.mark.parametrize("case", PLAIN)
def test_torch_gives_back_what_is_plain(case: str) -> None:
    value = PLAIN[case]
    assert describe_foreign_value(value, "state") is None
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    assert are_equal(torch.load(buffer, weights_only=True), value)


@pytest.mark.parametrize("case", FOREIGN)
def test_the_first_foreign_value_is_named(case: str) -> None:
    value, phrase = FOREIGN[case]
    assert describe_foreign_value(value, "state") is not None
    with pytest.raises(AssertionError, match=phrase):
        raise AssertionError(describe_foreign_value(value, "state"))
