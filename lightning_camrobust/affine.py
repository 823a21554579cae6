"""Tell whether the logits are an affine function of the target layer's output, so that ablations need no runs."""

import re
from typing import Any

import torch
from torch import Tensor

# What autograd calls the steps, less "Backward" and the number of the overload. Linear in all their inputs together:
_LINEAR = re.compile(
    "Add|Alias|(Adaptive)?AvgPool[23]D|AsStrided|Cat|Clone|ConstantPadNd|Expand|Mean|Neg|Permute|Repeat|ReshapeAlias|Rsub|"
    "Select|Slice|Split|SplitWithSizes|Squeeze|Stack|Sub|Sum|T|ToCopy|Transpose|Unbind|UnsafeView|Unsqueeze|"
    "Upsample(Nearest|NearestExact|Linear|Bilinear|Trilinear|Bicubic)[123]D|View"
)
# Linear in each of two inputs, at these positions: only one of them may depend on the leaf.
_PRODUCTS = {
    "Addmm": (1, 2),
    "Addmv": (1, 2),
    "Baddbmm": (1, 2),
    "Bmm": (0, 1),
    "Convolution": (0, 1),
    "CudnnBatchNorm": (0, 1),
    "Dot": (0, 1),
    "Linear": (0, 1),
    "Mm": (0, 1),
    "Mul": (0, 1),
    "Mv": (0, 1),
    "NativeBatchNorm": (0, 1),
}
# Overloads 2 and 3 of a division round.
_EXACT_DIVISIONS = frozenset({"0", "1"})
# How far two images may disagree about the one affine function, relative to the sums it is made of.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}


class AffineHead:
    """The question whether each row of ``output`` is one and the same affine function of the same row of ``leaf``.

    Two witnesses have to agree. Every step that autograd recorded between the two must be linear or affine; a step that
    is not known counts as neither. That alone would be fooled by what leaves no record, such as ``x * (x > 0)``, a
    detached factor or a forked ``if``, and by steps that mix rows. So the rows are compared as well: an affine function
    that is the same for each has one slope and one intercept. It costs one backward pass of an affine head, and the
    host has to wait for the answer, so it is only done when somebody asks.

    Args:
        output: ``(b, k)`` float with a graph.
        leaf: ``(b, ...)`` float, where the graph starts.

    Attributes:
        possible: Whether the first witness says so; then the graph has to be kept for the second.

    Example:
        >>> x = torch.rand(3, 2, 4, 4, requires_grad=True)
        >>> AffineHead(x.mean(dim=(2, 3)) * 2 + 1, x).holds(), AffineHead(x.relu().mean(dim=(2, 3)), x).holds()
        (True, False)
    """

    def __init__(self, output: Tensor, leaf: Tensor) -> None:
        self.possible = len(leaf) > 1 and _all_steps_are_affine(output, leaf)
        self._graph = (output, leaf) if self.possible else None

    def holds(self) -> bool:
        """Ask the second witness. False for a single row, or equal rows: there is nothing to compare."""
        return self._graph is not None and _rows_share_one_function(*self._graph)


def _all_steps_are_affine(output: Tensor, leaf: Tensor) -> bool:
    depends: dict[Any, bool] = {None: False}
    # By hand and not by recursion: graphs are deeper than Python's stack.
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        step = waiting[-1]
        before = [] if step in depends else [each for each, _ in step.next_functions]
        missing = [each for each in before if each not in depends]
        if missing:
            waiting.extend(missing)
            continue
        waiting.pop()
        if step in depends:
            continue
        inputs = [depends[each] for each in before]
        depends[step] = any(inputs) or getattr(step, "variable", None) is leaf
        if any(inputs) and not _is_affine_step(step, inputs):
            return False
    return depends[output.grad_fn]


def _is_affine_step(step: Any, depends: list[bool]) -> bool:
    # A user's own autograd.Function has no number, whatever it is called.
    matched = re.fullmatch(r"(\w+)Backward(\d+)", step.name())
    if matched is None:
        return False
    name, overload = matched.groups()
    if name == "Div":
        return overload in _EXACT_DIVISIONS and not any(depends[1:])
    if name.endswith("BatchNorm") and getattr(step, "_saved_training", None) is not False:
        return False
    if name in _PRODUCTS:
        return not all(depends[position] for position in _PRODUCTS[name] if position < len(depends))
    return _LINEAR.fullmatch(name) is not None


def _rows_share_one_function(output: Tensor, leaf: Tensor) -> bool:
    # One mixture of all logits stands for them all; random numbers would be the user's own.
    mixture = torch.arange(output.shape[1], device=output.device).cos().to(output.dtype).expand_as(output)
    (slopes,) = torch.autograd.grad(output, leaf, mixture, retain_graph=True)
    with torch.no_grad():
        precision = torch.promote_types(leaf.dtype, torch.float32)
        slopes, points = slopes.to(precision).flatten(1), leaf.to(precision).flatten(1)
        values, rises = output.to(precision) * mixture, slopes * points
        intercepts = values.sum(dim=1) - rises.sum(dim=1)
        # A broken image bears no witness and must not cost the others theirs.
        sound = intercepts.isfinite()
        slopes, points, intercepts = slopes[sound], points[sound], intercepts[sound]
        if not bool((points != points[:1]).any()):
            return False
        tolerance = max(_TOLERANCE.get(each.dtype, 2e-2) for each in (leaf, output))
        size = values[sound].abs().sum(dim=1).amax() + rises[sound].abs().sum(dim=1).amax()
        alike = (slopes - slopes[:1]).abs().amax() <= tolerance * slopes.abs().amax()
        return bool(alike & ((intercepts - intercepts[0]).abs().amax() <= tolerance * size))
