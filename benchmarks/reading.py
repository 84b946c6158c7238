"""What reading costs: batches from our files beside plain per-sample reads, beside a training step, and from a file larger than memory.

Usage: python -m benchmarks.reading [--out FOLDER] [--pairs N] [--threads N]. Writes reading.json and reading.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import h5py
import torch
from torch import Tensor

from benchmarks.measure import Ratio, ratio
from benchmarks.publish import publish, tell
from constraints import Axis, Grid
from pcfm.configuration import Experiment, build_network
from pcfm.experiment import measured_units
from pcfm.metrics import measure
from pcfm.objective import flow_matching_loss
from pcfm.path import AffinePath
from pcfm.schedule import Linear
from pcfm.training import Data
from pcfm.velocity import NetworkVelocity
from pde_datasets import Fields, store
from pde_datasets.fields import Batches, Shuffled
from pde_datasets.lazy import Lazy

BATCH = 64
LOADER = "loader over per-sample h5py reads"


def grid(points: int) -> Grid:
    return Grid(*(Axis(name, points, length=2 * torch.pi, periodic=True) for name in ("x", "y")))


def made(path: Path, count: int, points: int) -> Path:
    """A file of noise, written from an array that exists only where it is looked at."""

    def read(box: tuple[slice, ...]) -> Tensor:
        rows = range(*box[0].indices(count))
        generator = torch.Generator().manual_seed(rows[0] if len(rows) else 0)
        return torch.randn(len(rows), 1, points, points, generator=generator)

    store.write(path, Fields(Lazy(read, (count, 1, points, points), torch.float32), grid(points), ("u",)))
    return path


def plain(path: Path) -> Path:
    """The same fields as others store them: chunked, compressed (PDEBench, PDEArena: a chunk a sample)."""
    other = path.with_suffix(".plain.h5")
    with h5py.File(other, "w") as file:
        u = store.read(path).values.numpy()
        file.create_dataset("fields", data=u, chunks=(1, *u.shape[1:]), compression="lzf")
    return other


class Plain(torch.utils.data.Dataset[Tensor]):
    """What most projects write: one h5py read a sample."""

    def __init__(self, stored: h5py.Dataset) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.stored[index])


class Reopened(torch.utils.data.Dataset[Tensor]):
    """The same, the file opened for each sample: what data sets do that are to work in several processes (PDEBench, PDEArena)."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        with h5py.File(self.path, "r") as file:
            return torch.from_numpy(file["fields"][index])


def shuffled(fields: Fields) -> Iterable[Any]:
    """torch's loader over our mapped file."""
    return torch.utils.data.DataLoader(Batches(fields), sampler=Shuffled(len(fields), BATCH), batch_size=None)


def against_plain(path: Path, points: int, pairs: int) -> list[Ratio]:
    """An epoch in random order through torch's loader, no workers: over our mapped file, and over h5py reads of single samples.

    The reads are from a file that stays open, as ours or as others store it, and from one that is opened for each sample.
    """
    fields, rows, loader = store.read(path), [], torch.utils.data.DataLoader
    what = f"over ours, batch {BATCH}, {points}x{points} float32"
    ours = shuffled(fields)
    for name, other in (("contiguous", path), ("compressed chunks", plain(path))):
        with h5py.File(other, "r") as file:
            theirs = loader(Plain(file["fields"]), batch_size=BATCH, shuffle=True)
            rows.append(
                ratio(f"{LOADER}, {name}, file open / {what}", partial(_epoch, ours), partial(_epoch, theirs), pairs, 20, at_least=True)
            )
    reopened = loader(Reopened(path, len(fields)), batch_size=BATCH, shuffle=True)
    label = f"{LOADER}, file opened for each / {what}"
    rows.append(ratio(label, partial(_epoch, ours), partial(_epoch, reopened), max(3, pairs // 3), 20, at_least=True))
    return rows


def against_copy(path: Path, points: int, pairs: int) -> Ratio:
    """The same epoch beside copying as many bytes from memory in order: what no reading of whole samples can be faster than."""
    fields = store.read(path)
    ours = shuffled(fields)

    def copies() -> None:  # a batch lives until the next one is there, as it does in a loop over a loader
        _epoch(fields.u[first : first + BATCH].clone() for first in range(0, len(fields), BATCH))

    label = f"our loader / copying the same bytes in order, batch {BATCH}, {points}x{points} float32"
    return ratio(label, partial(_epoch, ours), copies, pairs, 2)


def _epoch(batches: Iterable[Any]) -> int:
    return sum(1 for _ in batches)


def against_step(path: Path, pairs: int) -> Ratio:
    """Reading and normalising a batch, beside the training step that uses it, the default network."""
    fields = store.read(path)
    units = measured_units(fields)
    data = Data(fields.u, 0.0, lambda u: (units.normalise(u), None))
    network = build_network(Experiment().network, fields.grid, 1, "none", 0)
    velocity, path_of_flow = NetworkVelocity(network), AffinePath(Linear())
    x1 = data.batch(0, BATCH, 0)[0]
    step = iter(range(10**9))

    def train() -> None:
        network.zero_grad()
        flow_matching_loss(velocity, path_of_flow, torch.randn_like(x1), x1, torch.rand(BATCH)).mean().backward()

    return ratio(
        f"reading a batch / training step, batch {BATCH}, 64x64 float32", lambda: data.batch(next(step), BATCH, 0), train, pairs, 0.02
    )


def held(path: Path) -> Ratio:
    """Memory held after batches from a file, over its size: the pages of the file itself are mapped, and the system's to drop."""
    fields = store.read(path)
    units = measured_units(fields[:64])
    size = fields.u.numel() * fields.u.dtype.itemsize
    before = anonymous()
    data = Data(fields.u, 0.0, lambda u: (units.normalise(u), None))
    for step in range(50):
        data.batch(step, BATCH, 0)
    taken = max(anonymous() - before, 0)
    share = taken / size
    name = f"memory held after 50 batches / file of {size / 2**20:.0f} MiB"
    return Ratio(name, share, share, share, taken, size, "at most 0.05", share <= 0.05)


def anonymous() -> int:
    """Memory of this process that is not a mapped file, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with measure() as meter, tempfile.TemporaryDirectory() as folder:
        rows = []
        for points, count in ((100, 2048), (32, 4096)):
            file = made(Path(folder) / f"{points}.h5", count, points)
            rows += [*against_plain(file, points, options.pairs), against_copy(file, points, options.pairs)]
        rows.append(against_step(made(Path(folder) / "64.h5", 2048, 64), max(3, options.pairs // 10)))
        rows.append(held(made(Path(folder) / "large.h5", 40_000, 64)))
        for row in rows:
            tell(row)
    command = f"python -m benchmarks.reading --pairs {options.pairs} --threads {options.threads}"
    publish(rows, options.out, "reading", "Cost of reading", command, meter)


if __name__ == "__main__":
    main()
