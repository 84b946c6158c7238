"""Derivatives of residuals by reverse passes, without what nobody asked for.

`torch.func.vjp` records a graph of every pull-back, in case it is differentiated again, and imports the compiler of torch at the first one,
seconds once a process. Where no gradient is wanted and no transform of `torch.func` is at work, plain reverse passes do.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]


def pullback(function: Function, u: Tensor) -> tuple[Tensor, Function]:
    r"""f(u) and $y \mapsto J_f(u)^\top y$.

    Arguments:
        function: f.
        u: where; any shape.
    """
    if _differentiated():
        value, pull = torch.func.vjp(function, u)[:2]
        return value, lambda y: pull(y)[0]
    with torch.enable_grad():
        at = u.detach().requires_grad_()
        value = function(at)

    def pulled(y: Tensor) -> Tensor:
        return _gradient(value, at, y, keep=True)

    return value.detach(), pulled


def hessian_product(function: Function, u: Tensor, weights: Tensor, direction: Tensor) -> Tensor:
    r"""$\sum_i w_i \nabla^2 f_i(u)\,z$ for rows (B, m) of a function of fields: two reverse passes, sample by sample."""
    if _differentiated():

        def slope(v: Tensor) -> Tensor:
            pulled: Tensor = torch.func.vjp(function, v)[1](weights)[0]
            return (pulled * direction).sum()

        curved: Tensor = torch.func.grad(slope)(u)
        return curved
    with torch.enable_grad():
        at = u.detach().requires_grad_()
        value = function(at)
        if not value.requires_grad:
            return torch.zeros_like(u)
        (slopes,) = torch.autograd.grad(value, at, weights, create_graph=True, allow_unused=True, materialize_grads=True)
        along = (slopes * direction).sum()
    return _gradient(along, at, torch.ones_like(along), keep=False)


def _gradient(value: Tensor, at: Tensor, y: Tensor, *, keep: bool) -> Tensor:
    """Zero where the value does not depend on the point."""
    if not value.requires_grad:
        return torch.zeros_like(at)
    (gradient,) = torch.autograd.grad(value, at, y, retain_graph=keep, allow_unused=True, materialize_grads=True)
    return gradient.detach()


def transforming() -> bool:
    """Whether a transform of `torch.func` is at work: what is computed now may not outlive it."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _differentiated() -> bool:
    """Whether somebody differentiates what is computed here: a graph is recorded, or a transform of `torch.func` is at work."""
    return torch.is_grad_enabled() or transforming()
