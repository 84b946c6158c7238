r"""Densities in words: $\eta(u)$ of the channels and their space derivatives, such as `u^3/6 - 0.00125*u_x^2`, as functions of fields.

Names are channels; a channel with an underscore and letters of axes behind it is a derivative, `u_x`, `u_xx`, `v_xy`: spectral along a
periodic axis, by central differences along any other. Between them stand numbers, + - * / ^ (or **), brackets and `abs(...)`. Nothing
else is evaluated.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from constraints import Grid
from constraints.calculus.finite_difference import CentralDifference
from constraints.calculus.spectral import Spectral, wavenumbers

_OPERATORS: dict[type[ast.operator], Callable[[Tensor, Tensor], Tensor]] = {
    ast.Add: torch.add, ast.Sub: torch.sub, ast.Mult: torch.mul, ast.Div: torch.div,
    ast.Pow: lambda base, power: torch.pow(base, float(power) if power.ndim == 0 else power),
}  # fmt: skip


def density(text: str, grid: Grid, channels: Sequence[str]) -> Callable[[Tensor], Tensor]:
    r"""The function (B, C, *N) to (B, *N) that an expression describes.

    Arguments:
        text: the expression.
        grid: the grid of the fields, whose space axes have names of one letter where derivatives are taken.
        channels: names of the channels.

    Raises:
        ValueError: no expression of this kind, or a name that is neither a channel nor a derivative of one.

    Example:
        >>> from constraints import Axis
        >>> line = Grid(Axis("x", 4, periodic=True))
        >>> density("u^2/2", line, ("u",))(torch.tensor([[[2.0, 0.0, 0.0, 0.0]]])).tolist()
        [[2.0, 0.0, 0.0, 0.0]]
    """
    try:
        tree = ast.parse(text.replace("^", "**").strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"density '{text}' is no expression: expects numbers, channels, derivatives such as u_x, and + - * / ^."
        ) from error
    _check(tree, text, grid, channels)
    return lambda u: _value(tree, u, grid, channels).expand(u.shape[0], *u.shape[2:])


def _check(node: ast.expr, text: str, grid: Grid, channels: Sequence[str]) -> None:
    """Refuse whatever is not understood before any field is there."""
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        _check(node.left, text, grid, channels)
        _check(node.right, text, grid, channels)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        _check(node.operand, text, grid, channels)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "abs" and len(node.args) == 1:
        _check(node.args[0], text, grid, channels)
    elif isinstance(node, ast.Name):
        _parts(node.id, text, grid, channels)
    elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
        raise ValueError(
            f"density '{text}' holds '{ast.unparse(node)}': expects numbers, channels, their derivatives, + - * / ^ and abs()."
        )


def _parts(name: str, text: str, grid: Grid, channels: Sequence[str]) -> tuple[int, str]:
    """The channel that a name stands for, and the axes along which it is differentiated."""
    axes = "".join(axis.name for axis in grid.space_axes if len(axis.name) == 1)
    for channel in sorted(channels, key=len, reverse=True):
        rest = name.removeprefix(f"{channel}_")
        if name == channel:
            return list(channels).index(channel), ""
        if rest != name and rest and set(rest) <= set(axes):
            return list(channels).index(channel), rest
    known = f"{', '.join(channels)}" + (f", and derivatives along {', '.join(axes)}, such as {channels[0]}_{axes[0]}" if axes else "")
    raise ValueError(f"density '{text}' knows no '{name}'. Known: {known}.")


def _derivative(value: Tensor, grid: Grid, axis: str, order: int) -> Tensor:
    """A derivative of some order; spectral ones of even order keep the Nyquist mode, which has a second derivative if no first one."""
    line = grid.axis(axis)
    if not (line.periodic and line.uniform):
        for _ in range(order):
            value = CentralDifference().derivative(value, grid, axis)
        return value
    if order % 2:
        value, order = Spectral().derivative(value, grid, axis), order - 1
    if order:
        dim, n = grid.dim(axis), line.points
        k = wavenumbers(line)[: n // 2 + 1].to(value)
        spectrum = torch.fft.rfft(value.movedim(dim, -1)) * (-k.square()) ** (order // 2)
        value = torch.fft.irfft(spectrum, n=n).movedim(-1, dim)
    return value


def _value(node: ast.expr, u: Tensor, grid: Grid, channels: Sequence[str]) -> Tensor:
    if isinstance(node, ast.BinOp):
        left, right = (_value(side, u, grid, channels) for side in (node.left, node.right))
        return _OPERATORS[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, u, grid, channels)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.Call):
        return _value(node.args[0], u, grid, channels).abs()
    if isinstance(node, ast.Name):
        channel, axes = _parts(node.id, node.id, grid, channels)
        value = u[:, channel]
        for axis in dict.fromkeys(axes):
            value = _derivative(value, grid, axis, axes.count(axis))
        return value
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, (int, float))
    return torch.as_tensor(float(node.value), dtype=u.dtype, device=u.device)
