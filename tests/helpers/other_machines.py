"""Other machines: the operations of a recorded step, computed right, but rounded in other places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten

Operation = Callable[..., Any]


class OtherMachine(TorchDispatchMode):
    """Computes some operations, within a block, in another way.

    Args:
        operations: Replacements by aten's operation.
    """

    def __init__(self, operations: Mapping[Any, Operation]) -> None:
        super().__init__()
        self.operations = operations
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        if func in self.operations:
            self.calls += 1
            others = self.operations[func](func, *args, **(kwargs or {}))
            # The numbers are the other ones; their layout in memory stays, since what follows may view them.
            for result, other in zip(tree_leaves(results), tree_leaves(others), strict=True):
                if result is not None:
                    result.copy_(other)
        return results

    def translate(self, recording: Any, work: Any) -> Callable[..., Any]:
        """Return a recording as this machine runs it: a `training.compiler.Translate`."""

        def run(*tensors: Tensor) -> Any:
            with self:
                return recording.graph(*tensors)

        return run


def compute_in_double(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute in float64, and round the result once."""
    wide = tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, args)
    dtype = next(x.dtype for x in args if isinstance(x, Tensor))
    return tree_map_only(Tensor, lambda x: x.to(dtype), func(*wide, **kwargs))


# The same terms in the reversed order.


def sum_reversed(func: Any, x: Tensor, dims: Sequence[int] | None = None, *args: Any, **kwargs: Any) -> Tensor:
    flipped = x.flip(list(range(x.dim())) if not dims else list(dims))
    return func(flipped, *([] if dims is None else [dims]), *args, **kwargs)


def multiply_reversed(func: Any, *args: Tensor, **kwargs: Any) -> Tensor:
    *first, a, b = args
    return func(*first, a.flip(-1), b.flip(-2), **kwargs)


def convolve_reversed(func: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *args: Any) -> Tensor:
    transposed = args[3]
    return func(x.flip(1), weight.flip(0 if transposed else 1), bias, *args)


def differentiate_convolution_reversed(func: Any, grad: Tensor, x: Tensor, *args: Any) -> Any:
    grad_x, grad_weight, grad_bias = func(grad.flip(0), x.flip(0), *args)
    return None if grad_x is None else grad_x.flip(0), grad_weight, grad_bias


# The same terms one after the other, in one accumulator: the worst order.


def sum_one_by_one(func: Any, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, **kw: Any) -> Tensor:
    places = [d % x.dim() for d in dims] if dims else list(range(x.dim()))
    rest = [d for d in range(x.dim()) if d not in places]
    rows = x.permute(*places, *rest).reshape(-1, *(x.shape[d] for d in rest))
    total = add_one_by_one(rows)
    if keepdim:
        total = total.reshape([1 if d in places else size for d, size in enumerate(x.shape)])
    return total


def average_one_by_one(
    func: Any, x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, **kw: Any
) -> Any:
    total = sum_one_by_one(func, x, dims, keepdim)
    return total / (x.numel() / max(1, total.numel()))


def add_one_by_one(rows: Tensor) -> Tensor:
    """Return the sum over the first dimension in one accumulator of the tensor's type."""
    if rows.dtype not in (torch.float32, torch.float64):
        return add_one_by_one(rows.float()).to(rows.dtype)
    return torch.from_numpy(np.array(np.cumsum(rows.contiguous().numpy(), axis=0)[-1]))


def convolve_by_unfolding(
    func: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    *args: Any,
) -> Tensor:
    """Convolve by `unfold` and a product of matrices, the terms of each kernel position one after the other."""
    if transposed:
        return func(x, weight, bias, stride, padding, dilation, transposed, *args)
    count, _, height, _ = x.shape
    kernel = weight.shape[2:]
    columns = F.unfold(x, kernel, dilation, padding, stride)
    product = weight.flatten(1) @ columns
    out_height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
    result = product.reshape(count, weight.shape[0], out_height, -1)
    if bias is not None:
        result = result + bias.reshape(1, -1, 1, 1)
    return result


def differentiate_convolution_one_by_one(
    func: Any,
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    output_padding: Any,
    groups: Any,
    mask: Sequence[bool],
) -> Any:
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    grad_x, grad_weight, grad_bias = func(grad, x, weight, bias_sizes, *rest, mask)
    if mask[1]:
        parts = [
            func(grad[i : i + 1], x[i : i + 1], weight, bias_sizes, *rest, [False, True, False])[1]
            for i in range(len(x))
        ]
        grad_weight = add_one_by_one(torch.stack(parts))
    if mask[2]:
        grad_bias = sum_one_by_one(None, grad, [0, 2, 3])
    return grad_x, grad_weight, grad_bias


SUMS = (aten.sum.dim_IntList, aten.sum.default)
MEANS = (aten.mean.dim, aten.mean.default)
PRODUCTS = (aten.mm.default, aten.addmm.default, aten.bmm.default)
IN_DOUBLE = (
    *SUMS, *MEANS, *PRODUCTS, aten.convolution.default, aten.convolution_backward.default, aten.tanh.default,
    aten.rsqrt.default, aten.softplus.default, aten.softplus_backward.default, aten.sigmoid.default, aten.div.Tensor,
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.pow.Tensor_Scalar, aten.sqrt.default, aten.lerp.Tensor,
    aten.avg_pool2d.default, aten.var.correction, aten.linalg_vector_norm.default,
)  # fmt: skip

MACHINES: dict[str, Mapping[Any, Operation]] = {
    "double": dict.fromkeys(IN_DOUBLE, compute_in_double),
    "reversed": {
        **dict.fromkeys((*SUMS, *MEANS), sum_reversed),
        **dict.fromkeys(PRODUCTS, multiply_reversed),
        aten.convolution.default: convolve_reversed,
        aten.convolution_backward.default: differentiate_convolution_reversed,
    },
    "one by one": {
        **dict.fromkeys(SUMS, sum_one_by_one),
        **dict.fromkeys(MEANS, average_one_by_one),
        aten.convolution.default: convolve_by_unfolding,
        aten.convolution_backward.default: differentiate_convolution_one_by_one,
    },
}
"""Ways to compute operations, by name."""
