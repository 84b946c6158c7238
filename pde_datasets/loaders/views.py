"""Arrays of a file as fields need them: turned round, moved along a period, unpacked; each reads no more than is asked for.

A view has a shape and a type and is indexed by one slice an axis with positive steps, as `parts.assembled` asks of arrays, so that views
can be laid over each other.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]


class View:
    """An array as it is; where another shape or type comes out, a subclass says so."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.dtype = np.dtype(array.dtype)

    def __getitem__(self, box: Box) -> NDArray[Any]:
        return np.asarray(self.array[box])


class Reversed(View):
    """The array with some axes the other way round: of latitudes that decrease, and the like.

    Example:
        >>> Reversed(np.arange(6), {0})[slice(1, 6, 2),]
        array([4, 2, 0])
    """

    def __init__(self, array: Any, axes: Collection[int]) -> None:
        super().__init__(array)
        self.axes = tuple(axes)

    def __getitem__(self, box: Box) -> NDArray[Any]:
        inner = list(box)
        for axis in self.axes:
            n = self.shape[axis]
            places = range(*box[axis].indices(n))
            inner[axis] = slice(n - 1 - places[-1], n - places[0], places.step) if places else slice(0, 0, 1)
        return np.flip(super().__getitem__(tuple(inner)), self.axes)


class Rolled(View):
    """The array moved around one of its axes, entry i from place i - shift, as `numpy.roll`.

    Example:
        >>> Rolled(np.arange(6), 0, 1)[slice(0, 6, 2),]
        array([5, 1, 3])
    """

    def __init__(self, array: Any, axis: int, shift: int) -> None:
        super().__init__(array)
        self.axis, self.shift = axis, shift % max(self.shape[axis], 1)

    def __getitem__(self, box: Box) -> NDArray[Any]:
        n, shift = self.shape[self.axis], self.shift
        places = range(*box[self.axis].indices(n))
        behind = sum(place < shift for place in places[: shift + 1])  # those that come from the end of the array
        cuts = [
            slice(part[0] + offset, part[-1] + offset + 1, part.step)
            for part, offset in ((places[:behind], n - shift), (places[behind:], -shift))
            if part
        ] or [slice(0, 0, 1)]
        pieces = [super(Rolled, self).__getitem__((*box[: self.axis], cut, *box[self.axis + 1 :])) for cut in cuts]
        return np.concatenate(pieces, axis=self.axis)


class Unpacked(View):
    """Numbers of a CF variable: $scale \\cdot packed + offset$, in the type of those two, with none of them missing.

    Arguments:
        array: the variable as it is stored.
        attributes: its attributes; `scale_factor`, `add_offset`, `_FillValue`, `missing_value` and `_Unsigned` are looked at.
        name: what to call it in errors.

    Raises:
        ValueError: on indexing, where values are missing.

    Source:
        CF metadata conventions 1.11, sections 2.5.1 and 8.1; NetCDF users' guide, appendix A, for `_Unsigned` and the default fill values.
    """

    def __init__(self, array: Any, attributes: Mapping[str, Any], name: str) -> None:
        super().__init__(array)
        self.name = name
        self.stored = self.dtype.newbyteorder("=")
        if str(attributes.get("_Unsigned", "")).lower() == "true" and self.stored.kind == "i":
            self.stored = np.dtype(f"u{self.stored.itemsize}")
        given = {key: np.asarray(attributes[key]) for key in ("scale_factor", "add_offset") if key in attributes}
        if any(value.size != 1 or value.dtype.kind not in "buif" for value in given.values()):
            raise ValueError(f"{name}: expects one number in scale_factor and in add_offset; got {attributes}. The file is damaged.")
        self.scale, self.offset = (float(given[key].ravel()[0]) if key in given else None for key in ("scale_factor", "add_offset"))
        packed_in = np.result_type(*(value.dtype for value in given.values())) if given else None
        self.dtype = self.stored if packed_in is None else packed_in if packed_in.kind == "f" else np.dtype(np.float64)
        self.missing = _missing(attributes, self.stored)

    def __getitem__(self, box: Box) -> NDArray[Any]:
        values = super().__getitem__(box)
        values = values.astype(values.dtype.newbyteorder("="), copy=False).view(self.stored)
        lost = sum(int((np.isnan(values) if fill != fill else values == fill).sum()) for fill in self.missing)
        if lost:
            raise ValueError(
                f"{self.name}: expects a value everywhere; {lost} of {values.size} are missing there "
                f"({', '.join(f'{fill:g}' for fill in self.missing)} stand for none). Fill them, or cut out a part that has all."
            )
        if self.scale is None and self.offset is None:
            return values
        return values.astype(self.dtype) * self.dtype.type(1.0 if self.scale is None else self.scale) + self.dtype.type(self.offset or 0.0)


_UNWRITTEN = {"f4": np.float32(9.9692099683868690e36), "f8": np.float64(9.9692099683868690e36)}
"""What the netCDF library leaves where floats were never written."""


def _missing(attributes: Mapping[str, Any], stored: np.dtype[Any]) -> tuple[Any, ...]:
    """The packed values that stand for none."""
    found = [_UNWRITTEN[stored.str[1:]]] if stored.str[1:] in _UNWRITTEN else []
    for key in ("_FillValue", "missing_value"):
        values = np.asarray(attributes.get(key, [])).ravel()
        if values.dtype.kind in "buif":
            with np.errstate(over="ignore", invalid="ignore"):
                packed = values.astype(stored)
            found += [fill for fill, given in zip(packed, values, strict=True) if fill == given or (given != given and stored.kind == "f")]
    return tuple(dict.fromkeys(found))
