r"""Maps whose Gram matrix has a known inverse.

| map | Gram matrix | solve |
|---|---|---|
| `Selection` | identity, or a diagonal | division |
| `WeightedSum` | diagonal, since rows have disjoint support | division |
| `RowSelection` | diagonal | division |
| `RowCombination` | $R\,\mathrm{diag}(g)\,R^\top$, small | pseudo-inverse, once |
| `SinceFirst` | a diagonal and one rank | Sherman-Morrison |
| `FourierSymbol` | diagonal in Fourier space | two transforms |

Each stays in its class under a diagonal weight, as far as the weight respects the structure.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from constraints.linear.derivative import transforming
from constraints.linear.entries import Entries
from constraints.linear.map import LinearMap, largest_of, sizes_of

_REGULAR = 1e-6
"""Smallest eigenvalue of a Gram matrix of unit diagonal, as a share of the largest, that one solve meets to round-off."""


def _divide(r: Tensor, gram: Tensor) -> Tensor:
    """r / gram, and zero where a row of the map is zero."""
    return torch.where(gram > 0, r / torch.where(gram > 0, gram, 1.0), 0.0)


class Selection(LinearMap):
    """The values of a field at chosen places.

    Arguments:
        mask: which values, boolean, (C, *N).
        weights: factor of each chosen value, (m,), or (B, m) if each sample has its own; ones by default.
    """

    index: Tensor
    channel: Tensor
    weights: Tensor

    def __init__(self, mask: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        index = mask.flatten().nonzero()[:, 0]
        self.shape, self.rows = tuple(mask.shape), len(index)
        self.register_buffer("index", index)
        self.register_buffer("channel", index // max(math.prod(mask.shape[1:]), 1))
        self.register_buffer("weights", torch.ones(self.rows, dtype=torch.float64) if weights is None else weights)
        self.batched = self.weights.ndim > 1
        self.plain = weights is None
        contiguous = self.rows > 0 and int(index[-1] - index[0]) == self.rows - 1
        self.start = int(index[0]) if contiguous else None

    def _values(self, u: Tensor) -> Tensor:
        """The chosen values; a view of the fields where they lie side by side."""
        flat = u.flatten(1)
        return flat.index_select(1, self.index) if self.start is None else flat.narrow(1, self.start, self.rows)

    def forward(self, u: Tensor) -> Tensor:
        return self._values(u).clone() if self.plain else self.weights.to(u) * self._values(u)

    def acts_on_each(self, dim: int) -> bool:
        return True

    def put(self, v: Tensor, target: Tensor | None) -> None:
        """The nearest values that meet the rows, in place; plain ones to the bit."""
        found = self._values(v)
        if self.plain:
            values = found.new_zeros(()) if target is None else target.to(v)
        else:
            weights = self.weights.to(v)
            rows = weights * found if target is None else weights * found - target.to(v)
            values = found - weights * self.solve_gram(rows)
        if self.start is not None:
            found.copy_(values)
        else:
            v.view(len(v), -1).index_copy_(1, self.index, values.expand_as(found))

    def nearest(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        v = u.clone(memory_format=torch.contiguous_format)
        self.put(v, target)
        rows = self(u)
        return v, self.solve_gram(rows if target is None else rows - target.to(u))

    def among(self, free: Tensor) -> Selection:
        """The same rows, zero where a value is not free, (C, *N)."""
        part = self.weighted(free)
        assert isinstance(part, Selection)
        return part

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        scaled = y if self.plain else self.weights.to(y) * y
        if self.start is not None and field.is_contiguous():
            field.view(len(field), -1).narrow(1, self.start, self.rows).sub_(scaled)
            return field
        return super().subtract(field, y)

    def adjoint(self, y: Tensor) -> Tensor:
        flat = y.new_zeros(y.shape[0], math.prod(self.shape))
        return flat.index_copy(1, self.index, self.weights.to(y) * y).reshape(-1, *self.shape)

    def entries(self) -> Entries:
        return Entries(torch.arange(self.rows, device=self.index.device), self.index, self.weights)

    def gram_diagonal(self, like: Tensor) -> Tensor:
        return (self.weights.to(like) ** 2).reshape(-1, self.rows)

    def null_rows(self) -> Tensor | None:
        return None if self.batched else self.weights == 0

    def solve_gram(self, r: Tensor) -> Tensor:
        return _divide(r, self.gram_diagonal(r))

    def weighted(self, diagonal: Tensor) -> LinearMap:
        batch = diagonal.shape[: max(0, diagonal.ndim - len(self.shape))]
        chosen = diagonal.expand(*batch, *self.shape).flatten(-len(self.shape))[..., self.index]
        mask = torch.zeros(math.prod(self.shape), dtype=torch.bool, device=self.index.device)
        mask[self.index] = True
        return Selection(mask.reshape(self.shape), self.weights * chosen.to(self.weights))

    def scale(self, u: Tensor) -> Tensor:
        """The largest value of its channel: a value that should be zero is measured by its neighbours, not by itself."""
        size = sizes_of(u)[:, self.channel]
        return size if self.plain else size * self.weights.to(u).abs()


class WeightedSum(LinearMap):
    r"""Weighted sums over some dimensions, one at each point of the others: $y_j = \sum_{i\in j} w_i u_i$.

    Arguments:
        weights: $w$, (C, *N), or (B, C, *N) if each sample has its own.
        dims: dimensions summed over, counted from the end; the channel dimension may be one of them.
    """

    weights: Tensor

    def __init__(self, weights: Tensor, dims: tuple[int, ...], *, batched: bool = False) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.shape = tuple(weights.shape[1:] if batched else weights.shape)
        self.dims, self.batched = dims, batched
        kept = [n for d, n in zip(range(-len(self.shape), 0), self.shape, strict=True) if d not in dims]
        self.rows = math.prod(kept)
        self._alike: tuple[Tensor, Tensor] | tuple[()] | None = None
        self._diagonal: Tensor | None = None
        self._kept_shape = tuple(1 if d in dims else n for d, n in zip(range(-len(self.shape), 0), self.shape, strict=True))

    def forward(self, u: Tensor) -> Tensor:
        if self.rows == 1:
            return self._dot(u)
        if self.batched:
            return (self.weights.to(u) * u).sum(self.dims).flatten(1)
        if self._alike is None:
            self._alike = self._outer()
        if self._alike:
            heights, line = (part.to(u) for part in self._alike)
            return (u.reshape(-1, len(line)) @ line).reshape(len(u), -1) * heights
        names = "abcdefgh"[: len(self.shape)]
        kept = "".join(name for d, name in zip(range(-len(self.shape), 0), names, strict=True) if d not in self.dims)
        return torch.einsum(f"z{names},{names}->z{kept}", u, self.weights.to(u)).flatten(1)

    def _outer(self) -> tuple[Tensor, Tensor] | tuple[()]:
        """The weights as a factor for each row times those of a typical row, where the sums run over the last dimensions alone."""
        if tuple(sorted(self.dims)) != tuple(range(-len(self.dims), 0)):
            return ()
        rows = self.weights.reshape(self.rows, -1)
        line = rows[rows.abs().amax(1).argmax()]
        heights = rows[:, line.abs().argmax()] / line[line.abs().argmax()]
        return (heights, line) if torch.equal(heights[:, None] * line, rows) else ()

    def _dot(self, u: Tensor) -> Tensor:
        """One row: an inner product, without a temporary of the size of the field."""
        w = self.weights.to(u).reshape(-1, math.prod(self.shape))
        flat = u.reshape(u.shape[0], -1)
        return torch.linalg.vecdot(flat, w)[:, None] if self.batched else (flat @ w[0])[:, None]

    def adjoint(self, y: Tensor) -> Tensor:
        return self.weights.to(y) * y.reshape(-1, *self._kept_shape)

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        return torch.addcmul(field, self.weights.to(y), y.reshape(-1, *self._kept_shape), value=-1)

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        return field.addcmul_(self.weights.to(y), y.reshape(-1, *self._kept_shape), value=-1)

    def null_rows(self) -> Tensor | None:
        return None if self.batched else self.gram_diagonal(self.weights)[0] == 0

    def acts_on_each(self, dim: int) -> bool:
        return dim not in self.dims

    def grouped(self, u: Tensor) -> Tensor:
        """The values of each row side by side, (B, m, n)."""
        last = tuple(range(-len(self.dims), 0))
        return u.movedim(self.dims, last).reshape(u.shape[0], self.rows, -1)

    def ungrouped(self, parts: Tensor, like: Tensor) -> Tensor:
        """Fields from the values of each row."""
        last = tuple(range(-len(self.dims), 0))
        return parts.reshape(like.movedim(self.dims, last).shape).movedim(last, self.dims)

    def entries(self) -> Entries:
        values = self.weights.flatten(1 if self.batched else 0)
        taken = (values != 0).reshape(-1, values.shape[-1]).any(0).nonzero()[:, 0]
        rows = torch.arange(self.rows, device=taken.device).reshape(self._kept_shape).expand(self.shape).flatten()
        return Entries(rows[taken], taken, values[..., taken])

    def gram_diagonal(self, like: Tensor) -> Tensor:
        if self._diagonal is not None and self._diagonal.device == like.device:
            return self._diagonal.to(like)
        diagonal = (self.weights.to(like.device, torch.float64) ** 2).sum(self.dims).reshape(-1, self.rows)
        self._diagonal = None if transforming() else diagonal
        return diagonal.to(like)

    def solve_gram(self, r: Tensor) -> Tensor:
        return _divide(r, self.gram_diagonal(r))

    def weighted(self, diagonal: Tensor) -> LinearMap:
        return WeightedSum(self.weights * diagonal.to(self.weights), self.dims, batched=self.batched or diagonal.ndim > len(self.shape))

    def scale(self, u: Tensor) -> Tensor:
        """The sum of the weights' magnitudes times the largest value of the channels that take part in any row."""
        weights = self.weights.to(u).abs()
        taken = weights.reshape(-1, *self.shape).any(0).flatten(1).any(1)
        return largest_of(u, taken) * weights.sum(self.dims).reshape(-1, self.rows)


class RowSelection(LinearMap):
    """Some rows of a weighted sum: those of some channels, say.

    Arguments:
        index: which rows, (m,).
        inner: the weighted sum.
    """

    index: Tensor

    def __init__(self, index: Tensor, inner: WeightedSum) -> None:
        super().__init__()
        self.register_buffer("index", index)
        self.inner = inner
        self.shape, self.rows, self.batched = inner.shape, len(index), inner.batched

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(u).index_select(1, self.index)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self._all(y))

    def acts_on_each(self, dim: int) -> bool:
        return self.inner.acts_on_each(dim)

    def _all(self, y: Tensor) -> Tensor:
        return y.new_zeros(y.shape[0], self.inner.rows).index_copy(1, self.index, y)

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.without(field, self._all(y))

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.subtract(field, self._all(y))

    def null_rows(self) -> Tensor | None:
        null = self.inner.null_rows()
        return None if null is None else null[self.index]

    def entries(self) -> Entries:
        every = self.inner.entries()
        place = torch.full((self.inner.rows,), -1, dtype=torch.int64, device=self.index.device)
        place[self.index] = torch.arange(self.rows, device=self.index.device)
        rows = place[every.rows]
        taken = rows >= 0
        return Entries(rows[taken], every.columns[taken], every.values[..., taken])

    def gram_diagonal(self, like: Tensor) -> Tensor:
        return self.inner.gram_diagonal(like)[:, self.index]

    def solve_gram(self, r: Tensor) -> Tensor:
        return _divide(r, self.gram_diagonal(r))

    def weighted(self, diagonal: Tensor) -> LinearMap:
        inner = self.inner.weighted(diagonal)
        assert isinstance(inner, WeightedSum)
        return RowSelection(self.index, inner)

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u)[:, self.index]


class RowCombination(LinearMap):
    r"""Linear combinations $R A$ of the rows of a weighted sum, such as their differences in time.

    Arguments:
        matrix: $R$, (m, m').
        inner: $A$.
    """

    matrix: Tensor
    dense_rows = 4096

    def __init__(self, matrix: Tensor, inner: WeightedSum) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.inner = inner
        self.shape, self.rows, self.batched = inner.shape, int(matrix.shape[0]), inner.batched

    def forward(self, u: Tensor) -> Tensor:
        return self.inner(u) @ self.matrix.to(u).T

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(y @ self.matrix.to(y))

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.without(field, y @ self.matrix.to(y))

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.subtract(field, y @ self.matrix.to(y))

    def null_rows(self) -> Tensor | None:
        """None, unless the Gram matrix says that the rows are independent."""
        if self.batched:
            return None
        gram = self.gram(self.matrix)
        scale = gram.diagonal().rsqrt()
        values = torch.linalg.eigvalsh((gram * scale[:, None] * scale).nan_to_num(0.0, 0.0, 0.0))
        return torch.zeros(self.rows, dtype=torch.bool, device=gram.device) if bool(values[0] > _REGULAR * values[-1]) else None

    def entries(self) -> Entries:
        return self.inner.entries().combined(self.matrix)

    def gram(self, like: Tensor) -> Tensor:
        matrix, diagonal = self.matrix.to(like), self.inner.gram_diagonal(like)
        gram = (matrix * diagonal[..., None, :]) @ matrix.T
        return gram if self.batched else gram[0]

    def weighted(self, diagonal: Tensor) -> LinearMap:
        inner = self.inner.weighted(diagonal)
        assert isinstance(inner, WeightedSum)
        return RowCombination(self.matrix, inner)

    def scale(self, u: Tensor) -> Tensor:
        return self.inner.scale(u) @ self.matrix.to(u).abs().T


class SinceFirst(RowCombination):
    r"""What weighted sums have changed by since the first time, $y_t = A_t u - A_0 u$ for $t > 0$; rows are (block, time).

    Its Gram matrix is $\mathrm{diag}(g_t) + g_0 1 1^\top$ for each block, inverted by Sherman and Morrison's formula where $g_t > 0$.

    Arguments:
        inner: A, rows (block, time), the first time included.
        times: number of times.
    """

    def __init__(self, inner: WeightedSum, times: int) -> None:
        self.times, self.blocks = times, inner.rows // times
        matrix = torch.cat([-torch.ones(times - 1, 1, dtype=torch.float64), torch.eye(times - 1, dtype=torch.float64)], dim=1)
        super().__init__(torch.block_diag(*[matrix] * self.blocks), inner)
        self._regular: bool | None = None

    def forward(self, u: Tensor) -> Tensor:
        rows = self.inner(u).reshape(len(u), self.blocks, self.times)
        return (rows[..., 1:] - rows[..., :1]).flatten(1)

    def _spread(self, y: Tensor) -> Tensor:
        rows = y.reshape(len(y), self.blocks, self.times - 1)
        return torch.cat([-rows.sum(2, keepdim=True), rows], dim=2).flatten(1)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self._spread(y))

    def without(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.without(field, self._spread(y))

    def subtract(self, field: Tensor, y: Tensor) -> Tensor:
        return self.inner.subtract(field, self._spread(y))

    def solve_gram(self, r: Tensor) -> Tensor:
        diagonal = self.inner.gram_diagonal(r).reshape(-1, self.blocks, self.times)
        first, later = diagonal[..., :1], diagonal[..., 1:]
        if self._regular is None:
            self._regular = bool(((later > 0) | (first == 0)).all())
        if not self._regular:
            return super().solve_gram(r)
        part = _divide(r.reshape(len(r), self.blocks, -1), later)
        common = first * part.sum(2, keepdim=True) / (1 + first * _divide(torch.ones_like(later), later).sum(2, keepdim=True))
        return (part - _divide(common, later)).flatten(1)

    def weighted(self, diagonal: Tensor) -> LinearMap:
        inner = self.inner.weighted(diagonal)
        assert isinstance(inner, WeightedSum)
        return SinceFirst(inner, self.times)


class FourierSymbol(LinearMap):
    r"""A constant-coefficient differential operator on periodic axes: $\widehat{A u}(k) = \sum_c \sigma_c(k)\,\hat u_c(k)$.

    The symbol is real (even operators) or imaginary (odd ones). Its Gram matrix is $\sum_c|\sigma_c|^2$ at each wavenumber;
    where that vanishes (the mean, and modes a difference stencil cannot see) the rows are zero and so is the multiplier.

    Arguments:
        symbol: $\sigma_c$, or $\sigma_c/i$ if odd, on the real Fourier transform of the last d dimensions, (C, *K), real.
        shape: what one field looks like, (C, *N); dimensions of *N before the last d are carried along.
        odd: whether the symbol is imaginary.
        weights: diagonal weight of the field, constant over the last d dimensions, broadcastable to (C, *N).
    """

    symbol: Tensor
    weights: Tensor

    def __init__(self, symbol: Tensor, shape: tuple[int, ...], *, odd: bool, weights: Tensor | None = None) -> None:
        super().__init__()
        d = symbol.ndim - 1
        self.register_buffer("symbol", symbol)
        ones = torch.ones((shape[0],) + (1,) * (len(shape) - 1), dtype=torch.float64)
        self.register_buffer("weights", ones if weights is None else weights)
        self.shape, self.odd = tuple(shape), odd
        self.sizes = tuple(shape[-d:])
        self.dims = tuple(range(-d, 0))
        self.rows = math.prod(shape[1:])
        self.active = [c for c in range(shape[0]) if bool(symbol[c].any())]
        self._cached: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}
        self._pairs: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted symbol of active channels (A, ..., *K) and the inverse of the Gram symbol (..., *K), in the dtype of `like`."""
        key = (like.dtype, like.device)
        if key not in self._cached:
            lead = len(self.shape) - 1 - len(self.sizes)
            sigma = self.symbol.reshape(self.shape[0], *(1,) * lead, *self.symbol.shape[1:]) * self.weights
            sigma = sigma[self.active]
            gram = (sigma**2).sum(0)
            floor = 1e-20 * gram.max()
            inverse = torch.where(gram > floor, 1 / torch.where(gram > floor, gram, 1.0), 0.0)
            self._cached[key] = (sigma.to(like), inverse.to(like))
        return self._cached[key]

    def acts_on_each(self, dim: int) -> bool:
        return dim not in self.dims

    def masked_rows(self) -> Tensor:
        """Rows where the weights leave no channel, (m,)."""
        sigma, _ = self._factors(self.weights)
        seen = (sigma != 0).flatten(-len(self.sizes)).any(-1).any(0)
        lead = self.shape[1 : len(self.shape) - len(self.sizes)]
        return ~seen.expand(lead).reshape(*lead, *(1,) * len(self.sizes)).expand(self.shape[1:]).flatten()

    def _taken(self, u: Tensor) -> Tensor:
        """The channels that take part."""
        return u if len(self.active) == self.shape[0] else u[:, self.active]

    def _put(self, part: Tensor, rest: Tensor | None = None) -> Tensor:
        """Fields of all channels from those that take part; the others are as in `rest`, to the bit, or zero."""
        if len(self.active) == self.shape[0]:
            return part
        full = part.new_zeros(part.shape[0], *self.shape) if rest is None else rest.clone()
        full[:, self.active] = part
        return full

    def _transform(self, u: Tensor) -> Tensor:
        return torch.fft.rfftn(u, dim=self.dims)

    def _inverse(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfftn(spectrum, s=self.sizes, dim=self.dims)

    def rows_of(self, spectrum: Tensor) -> Tensor:
        """Rows (B, m) from sum_c sigma_c û_c, the factor i of odd symbols put in."""
        return self._inverse(spectrum * 1j if self.odd else spectrum).flatten(1)

    def _row_spectrum(self, y: Tensor) -> Tensor:
        spectrum = self._transform(y.reshape(-1, *self.shape[1:]))
        return spectrum * -1j if self.odd else spectrum

    def forward(self, u: Tensor) -> Tensor:
        sigma, _ = self._factors(u)
        return self.rows_of((sigma * self._transform(self._taken(u))).sum(1))

    def adjoint(self, y: Tensor) -> Tensor:
        sigma, _ = self._factors(y)
        return self._put(self._inverse(sigma * self._row_spectrum(y)[:, None]))

    def solve_gram(self, r: Tensor) -> Tensor:
        _, inverse = self._factors(r)
        return self._inverse(inverse * self._transform(r.reshape(-1, *self.shape[1:]))).flatten(1)

    def nearest(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One transform there and one back; the multiplier takes one more, of a single channel."""
        v, part = self.correct(u, target)
        return v, self.multiplier_of(part)

    def correct(self, u: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""The nearest field with A v = target (0 by default), and the part along $n = \sigma/|\sigma|$ taken out of it.

        Factors are real: they act on real and imaginary parts side by side, channel by channel and in place, without complex
        arithmetic or temporaries of the size of the field.
        """
        direction, inverse = self._doubled(u)
        spectrum = self._transform(self._taken(u))
        parts = torch.view_as_real(spectrum).flatten(-2)
        along = direction[0] * parts[:, 0]
        for c in range(1, len(self.active)):
            along.addcmul_(direction[c], parts[:, c])
        if target is not None:
            rows = torch.view_as_real(self._row_spectrum(target.expand(u.shape[0], self.rows))).flatten(-2)
            along.addcmul_(inverse, rows, value=-1)
        for c in range(len(self.active)):
            parts[:, c].addcmul_(direction[c], along, value=-1)
        return self._put(self._inverse(spectrum), u), along

    def multiplier_of(self, along: Tensor) -> Tensor:
        r"""The multiplier that takes a part along n out of a field, $|\sigma|^{-1}$ of it."""
        scaled = along * self._doubled(along)[1]
        return self.rows_of(torch.view_as_complex(scaled.unflatten(-1, (-1, 2))))

    def _doubled(self, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""$\sigma/|\sigma|$ and $1/|\sigma|$ with each value twice, for real and imaginary part side by side."""
        key = (like.dtype, like.device)
        if key not in self._pairs:
            sigma, inverse = self._factors(like.new_zeros((), dtype=torch.float64))
            root = inverse.sqrt()
            pair = (sigma * root, root)
            self._pairs[key] = (pair[0].repeat_interleave(2, dim=-1).to(like), pair[1].repeat_interleave(2, dim=-1).to(like))
        return self._pairs[key]

    def measure(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Rows, and their natural magnitude: the largest sum of the magnitudes of their terms, plus the root mean square gradient.

        The terms alone would not do: in a shear flow each of them vanishes, and round-off would be measured by round-off.
        """
        sigma, _ = self._factors(u)
        spectrum = self._transform(self._taken(u))
        terms = self._inverse(spectrum * (1j * sigma if self.odd else sigma))
        largest = terms.abs().sum(1).flatten(1).amax(1, keepdim=True)
        return terms.sum(1).flatten(1), largest + self._gradient(spectrum, sigma)

    def _gradient(self, spectrum: Tensor, sigma: Tensor) -> Tensor:
        r"""$(\sum_k \sum_c|\sigma_c|^2 \sum_c|\hat u_c|^2)^{1/2}$ in physical scaling (Parseval), (B, 1)."""
        twice = torch.full((spectrum.shape[-1],), 2.0, dtype=sigma.dtype, device=spectrum.device)
        twice[0] = 1.0
        if self.sizes[-1] % 2 == 0:
            twice[-1] = 1.0
        power = torch.view_as_real(spectrum).square().sum((1, -1)) * sigma.square().sum(0) * twice
        points = math.prod(self.sizes) ** 2 * math.prod(self.shape[1 : -len(self.sizes)])
        return (power.flatten(1).sum(1, keepdim=True) / points).sqrt()

    def scale(self, u: Tensor) -> Tensor:
        return self.measure(u)[1]

    def weighted(self, diagonal: Tensor) -> LinearMap:
        if diagonal.ndim > len(self.shape):
            return super().weighted(diagonal)
        diagonal = diagonal.to(self.weights)
        full = diagonal.expand(self.shape)
        corner = full
        for dim in self.dims:
            corner = corner.narrow(dim, 0, 1)
        if not torch.equal(full, corner.expand(self.shape)):
            return super().weighted(diagonal)
        return FourierSymbol(self.symbol, self.shape, odd=self.odd, weights=self.weights * corner)
