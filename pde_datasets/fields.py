"""Fields with what is known of them: grid or mesh, channels, units, parameters, laws; and parts of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from constraints import Axis, Grid
from pde_datasets.lazy import Lazy
from pde_datasets.mesh import Mesh

_POINTWISE = ("bounds", "positivity", "channel-sum")
"""Laws on single values: they hold for any part of the fields."""

_AT_ANY_TIME = (
    *_POINTWISE, "mass", "momentum", "energy", "enstrophy", "divergence-free", "curl-free", "dirichlet", "neumann", "robin",
    "periodic-seam", "no-slip", "no-penetration", "monotone", "energy-bound", "energy-decay",
)  # fmt: skip
"""Laws that hold at each time, or between any two: they survive a choice of times, but not of points."""


@dataclass(frozen=True)
class Fields:
    """A set of fields and what is known of them.

    Attributes:
        u: the fields, (N, C, *N), physical; a tensor, possibly mapped from a file, or `Lazy`, read when indexed. `values` reads all.
        grid: what they live on; on a mesh an axis that numbers its points, cells or faces.
        channels: name of each channel.
        units: unit of each channel, CF spelling, "1" for none.
        parameters: numbers that differ between samples, each (N,) or (N, ...). "trajectory" says which samples belong together.
        roles: channels that play a part in laws: "velocity" (a component a space axis, in grid order), "momentum", "density",
            "energy", "valid" (positive where values mean something), each a tuple of channel names.
        laws: laws the source states for these fields, in the notation of the command line, such as "divergence-free:scheme=spectral".
        attributes: plain values: format, equation, scheme, seed, source.
        mesh: points, cells and equations where there is no product of axes.

    Raises:
        ValueError: shapes, units, parameters or roles that do not fit each other.
    """

    u: Tensor | Lazy
    grid: Grid
    channels: tuple[str, ...]
    units: tuple[str, ...] = ()
    parameters: dict[str, Tensor] = field(default_factory=dict)
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        self.grid.check(torch.empty(self.u.shape, device="meta"), "Fields", channels=len(self.channels))
        if not self.units:
            object.__setattr__(self, "units", ("1",) * len(self.channels))
        if len(self.units) != len(self.channels):
            raise ValueError(f"Fields expects one unit a channel; got units {self.units} for channels {self.channels}.")
        for name, values in self.parameters.items():
            if values.ndim < 1 or values.shape[0] != self.u.shape[0]:
                raise ValueError(f"Fields expects parameter '{name}' with {self.u.shape[0]} rows; got {tuple(values.shape)}.")
        for role, names in self.roles.items():
            for name in names:
                self.channel(name, f"role '{role}'")

    def __len__(self) -> int:
        return int(self.u.shape[0])

    def __getitem__(self, index: slice) -> Fields:
        """A range of the samples."""
        positions = torch.arange(len(self))[index]
        parameters = {name: values[index] for name, values in self.parameters.items()}
        u = self.u.narrowed(index) if isinstance(self.u, Lazy) else self.u[index]
        return replace(self, u=u, parameters=parameters, mesh=None if self.mesh is None else self.mesh.take(positions))

    @property
    def nbytes(self) -> int:
        """Bytes that the values of the fields take, in memory or in a file."""
        return self.u.numel() * self.u.dtype.itemsize

    @property
    def values(self) -> Tensor:
        """All fields in memory."""
        return self.u.load() if isinstance(self.u, Lazy) else self.u

    def pieces(self) -> Iterator[Fields]:
        """The fields in pieces of moderate size, one after the other: how a file larger than memory is gone through."""
        starts = (self.u if isinstance(self.u, Lazy) else Lazy.of(self.u)).blocks()
        for first in starts:
            yield self[first : first + starts.step]

    def channel(self, name: str, speaker: str = "Fields") -> int:
        """Position of a channel.

        Raises:
            ValueError: no channel of that name.
        """
        if name not in self.channels:
            raise ValueError(f"{speaker} expects one of the channels {', '.join(self.channels)}; got '{name}'.")
        return self.channels.index(name)

    def role(self, name: str) -> tuple[int, ...]:
        """Positions of the channels that play a part, empty if none do."""
        return tuple(self.channel(channel) for channel in self.roles.get(name, ()))

    def take(self, index: Tensor) -> Fields:
        """Some of the samples, by position and in that order; nothing is read."""
        u = self.u if isinstance(self.u, Lazy) else Lazy.of(self.u)
        parameters = {name: values[index] for name, values in self.parameters.items()}
        return replace(self, u=u.rows(index), parameters=parameters, mesh=None if self.mesh is None else self.mesh.take(index))

    def split(self, *, seed: int = 0, **shares: float) -> dict[str, Fields]:
        """Parts of the samples at random, such as `split(train=0.8, test=0.2)`; samples of one trajectory stay together.

        Windows and snapshots of a trajectory resemble each other: a test set with some of them would measure memory.

        Arguments:
            seed: of the choice.
            shares: name and share of each part, at most one in all.

        Raises:
            ValueError: shares that are not positive or exceed one, or fewer trajectories than parts.
        """
        if not shares or min(shares.values()) <= 0 or sum(shares.values()) > 1 + 1e-9:
            raise ValueError(f"split expects positive shares of at most one in all, like train=0.8, test=0.2; got {shares}.")
        label = self.parameters.get("trajectory", torch.arange(len(self)))
        groups, member = torch.unique(label, return_inverse=True)
        if len(groups) < len(shares):
            raise ValueError(f"split expects at least one trajectory a part, {len(shares)}; got {len(groups)}.")
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
        ends = [max(i + 1, round(share * len(groups))) for i, share in enumerate(torch.tensor(list(shares.values())).cumsum(0).tolist())]
        parts, first = {}, 0
        for i, name in enumerate(shares):
            last = min(max(ends[i], first + 1), len(groups) - (len(shares) - 1 - i))
            chosen = torch.isin(member, order[first:last])
            parts[name] = self.take(chosen.nonzero().flatten())
            first = last
        return parts

    def windows(self, frames: int, *, every: int = 1, stride: int = 1) -> Fields:
        """Pieces of the trajectories as samples: `frames` times each, one window every so many frames; nothing is read.

        Arguments:
            frames: times in a window.
            every: frames from the start of one window to that of the next.
            stride: frames from one time of a window to the next.

        Returns:
            The windows of a trajectory one after the other, with parameters "trajectory" and "start", its first time. Their times count
            from 0. Laws that speak of the first time or of each step are no longer stated.

        Raises:
            ValueError: no time axis, times that are not equally spaced, or windows that do not fit.
        """
        if not self.grid.has_time or not self.grid.axes[0].uniform:
            raise ValueError(f"windows expects fields with equally spaced times; these are on {self.grid}.")
        axis = self.grid.axes[0]
        if min(frames, every, stride) < 1:
            raise ValueError(f"windows expects at least 1 as frames, every and stride; got {frames}, {every} and {stride}.")
        reach = (frames - 1) * stride + 1
        if reach > axis.points:
            raise ValueError(
                f"windows expects windows that fit {axis.points} times; {frames} times, one every {stride}, take {reach}. "
                "Ask for fewer times, or a smaller stride."
            )
        starts = torch.arange(0, axis.points - reach + 1, every)
        count = len(starts)
        base = self.u if isinstance(self.u, Lazy) else Lazy.of(self.u)

        def read(box: tuple[slice, ...]) -> Tensor:
            rows = range(*box[0].indices(len(self) * count))
            pieces = []
            for row in rows:
                first = int(starts[row % count])
                times = range(first, first + reach, stride)[box[2]]
                pieces.append(base[(row // count, box[1], slice(times.start, times.stop, times.step), *box[3:])])
            return torch.stack(pieces)

        shape = (len(self) * count, self.u.shape[1], frames, *self.u.shape[3:])
        parameters = {name: values.repeat_interleave(count, 0) for name, values in self.parameters.items()}
        parameters.setdefault("trajectory", torch.arange(len(self)).repeat_interleave(count))
        parameters["start"] = (axis.origin + axis.spacing * starts.to(torch.float64)).repeat(len(self))
        time = Axis("time", frames, length=axis.spacing * stride * max(frames - 1, 1), unit=axis.unit)
        windows = replace(self, u=Lazy(read, shape, self.u.dtype), grid=Grid(time, *self.grid.axes[1:]), parameters=parameters)
        return windows._weaker(_AT_ANY_TIME, f"Windows of {frames} times, {stride} frames apart")

    def thinned(self, **strides: int) -> Fields:
        """Every k-th point of the named axes, such as `thinned(time=2, x=4)`; nothing is read.

        A discrete law holds on the points of its scheme and no others. Laws that do not hold on what is left are no longer stated, and
        the notes name them.

        Raises:
            ValueError: an unknown axis, a stride below 1, one that leaves a single point, or one that does not divide the points of an
                equally spaced periodic axis.
        """
        for name, stride in strides.items():
            if name not in self.grid.names:
                raise ValueError(f"thinned expects an axis out of {', '.join(self.grid.names)}; there is no axis '{name}'.")
            if stride < 1:
                raise ValueError(f"thinned expects strides of at least 1; got {name}={stride}.")
        axes = [_thinned(axis, strides.get(axis.name, 1)) for axis in self.grid.axes]
        box = (slice(None), slice(None), *(slice(None, None, strides.get(axis.name, 1)) for axis in self.grid.axes))
        u = self.u.narrowed(*box) if isinstance(self.u, Lazy) else self.u[box]
        kept = _POINTWISE if any(name != "time" and stride > 1 for name, stride in strides.items()) else _AT_ANY_TIME
        part = replace(self, u=u, grid=Grid(*axes), mesh=None)
        if all(stride == 1 for stride in strides.values()):
            return self
        return part._weaker(kept, "Every " + ", ".join(f"{stride}-th point of {name}" for name, stride in strides.items() if stride > 1))

    def _weaker(self, kept: tuple[str, ...], what: str) -> Fields:
        """The fields without laws that do not survive, nor the problem whose discrete laws they are."""
        lost = [law for law in self.laws if law.partition(":")[0] not in kept]
        attributes = {key: value for key, value in self.attributes.items() if key != "problem_settings"}
        if "problem_settings" in self.attributes:
            lost.append(f"the discrete laws of problem {self.attributes.get('problem')}")
        note = f"{what}: " + (f"no longer stated: {', '.join(lost)}." if lost else "all stated laws still hold.")
        attributes["notes"] = " ".join(filter(None, [str(self.attributes.get("notes", "")), note]))
        return replace(self, laws=tuple(law for law in self.laws if law not in lost), attributes=attributes)


def _thinned(axis: Axis, stride: int) -> Axis:
    """Every k-th point of an axis."""
    if stride == 1:
        return axis
    if stride >= axis.points:
        raise ValueError(
            f"thinned expects a stride that leaves two of the {axis.points} points of axis {axis.name}; got {axis.name}={stride}."
        )
    if axis.periodic and axis.uniform:
        if axis.points % stride:
            divisors = [k for k in range(2, axis.points) if axis.points % k == 0]
            raise ValueError(
                f"thinned expects a stride that divides the {axis.points} points of the periodic axis {axis.name}, so that they stay "
                f"equally spaced; got {axis.name}={stride}. Take one of {', '.join(map(str, divisors[:8])) or '1'}."
            )
        return Axis(axis.name, axis.points // stride, length=axis.extent, origin=axis.origin, periodic=True, unit=axis.unit)
    positions = axis.positions()[::stride]
    period = axis.extent if axis.periodic else None
    return Axis.at(axis.name, positions.tolist(), periodic=axis.periodic, length=period, unit=axis.unit)


def prototype(count: int, channels: tuple[str, ...], grid: Grid, dtype: torch.dtype) -> Fields:
    """Fields without values, like others that are still to be made: what a file of those needs can be asked before any is."""

    def none(box: tuple[slice, ...]) -> Any:
        raise ValueError("a prototype of fields has no values.")

    return Fields(Lazy(none, (count, len(channels), *grid.shape), dtype, "prototype"), grid, channels)


def join(parts: Sequence[Fields]) -> Fields:
    """Sets of fields of one kind as one; nothing is read.

    Raises:
        ValueError: none, or sets that differ in grid, channels, units, type or parameters, or live on different meshes.
    """
    if not parts:
        raise ValueError("join expects at least one set of fields; got none.")
    first = parts[0]
    for part in parts[1:]:
        for what, a, b in (
            ("grid", str(first.grid), str(part.grid)),
            ("channels", first.channels, part.channels),
            ("units", first.units, part.units),
            ("type", first.u.dtype, part.u.dtype),
            ("parameters", sorted(first.parameters), sorted(part.parameters)),
            ("roles", first.roles, part.roles),
            ("mesh", first.mesh is None, part.mesh is None),
        ):
            if a != b:
                raise ValueError(f"join expects fields of one {what}; got {a} and {b}.")
        if first.mesh is not None and part.mesh is not None and not torch.equal(first.mesh.points, part.mesh.points):
            raise ValueError("join expects fields on one mesh; the points differ. Interpolate them to common points first.")
    ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
    begins = [0, *ends[:-1]]

    def read(box: tuple[slice, ...]) -> Tensor:
        start, stop, step = box[0].indices(ends[-1])
        pieces = []
        for part, begin, end in zip(parts, begins, ends, strict=True):
            low = start + max(0, -(-(begin - start) // step)) * step
            if low < min(stop, end):
                pieces.append(part.u[(slice(low - begin, min(stop, end) - begin, step), *box[1:])])
        return torch.cat(pieces)

    parameters = {name: torch.cat([part.parameters[name] for part in parts]) for name in first.parameters}
    laws = tuple(law for law in first.laws if all(law in part.laws for part in parts))
    return replace(first, u=Lazy(read, (ends[-1], *first.u.shape[1:]), first.u.dtype), parameters=parameters, laws=laws)


class Batches(torch.utils.data.Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Fields as a data set of `torch.utils.data`: item i is a field (C, *N) with its parameters, several items at once a batch.

    A batch (B, C, *N), with parameters (B, ...), is gathered from the mapped file in one go. A loader whose sampler is `Shuffled` asks for
    nothing else, and does no work a sample; pass it `batch_size=None`, since there is nothing left to collate.

    Example:
        >>> line = Fields(torch.zeros(8, 1, 4), Grid(Axis("x", 4)), ("u",), parameters={"a": torch.arange(8)})
        >>> loader = torch.utils.data.DataLoader(Batches(line), sampler=Shuffled(len(line), 4), batch_size=None)
        >>> [u.shape for u, parameters in loader]
        [torch.Size([4, 1, 4]), torch.Size([4, 1, 4])]
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        u, parameters = self.fields.u, self.fields.parameters
        if isinstance(index, int):
            return u[index], {name: values[index] for name, values in parameters.items()}
        at = u[index] if isinstance(u, Lazy) else u.index_select(0, index)  # indexing a tensor takes twice as long
        return at, {name: values[index] for name, values in parameters.items()}

    def __getitems__(self, index: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return self[torch.tensor(index)]


class Shuffled(torch.utils.data.Sampler[Tensor]):
    """Positions of samples in random order, a batch at a time: for loaders over `Batches`.

    Each epoch has an order of its own, which depends on the seed and the number of the epoch alone.

    Arguments:
        count: of samples.
        size: of a batch; the last one may be smaller.
        seed: of the orders.
        epoch: the number of the first epoch, to go on where a run stopped.

    Raises:
        ValueError: no samples, or empty batches.
    """

    def __init__(self, count: int, size: int, *, seed: int = 0, epoch: int = 0) -> None:
        if min(count, size) < 1:
            raise ValueError(f"Shuffled expects at least one sample, and one a batch; got {count} and {size}.")
        self.count, self.size, self.seed, self.epoch = count, size, seed, epoch

    def __len__(self) -> int:
        return -(-self.count // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.randperm(self.count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch))
        self.epoch += 1
        yield from order.split(self.size)
