"""Damages small valid files and opens them: `python -m tests.fuzz COUNT NAME ...` in a process of its own.

A damaged file opens as fields or is refused with one line; anything else is printed and is a failure. Run apart, since a library written
in C may end the process, which is what is looked for. Damage is seeded by the format's name and the number of the trial.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pde_datasets
from pde_datasets import Fields, store
from pde_datasets.mesh import Equation, Mesh, csr, on_mesh

SECONDS = 20
"""How long one file may take."""


def writers() -> dict[str, Callable[[Path], Path]]:
    """By format, what writes a small valid file or folder below a folder."""
    from tests import test_loader_pidm, test_loaders, test_loaders_arrays, test_loaders_hdf5, test_loaders_mesh

    pidm = test_loader_pidm.WRITERS
    return {
        "pcfm": _ours,
        **pidm,
        **test_loaders.WRITERS,
        **test_loaders_hdf5.WRITERS,
        **test_loaders_mesh.WRITERS,
        **test_loaders_arrays.WRITERS,
    }


def _ours(folder: Path) -> Path:
    """One of our own files, on a mesh so that it has every kind of group."""
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    equation = Equation(csr(torch.tensor([0]), torch.tensor([1]), torch.ones(1, dtype=torch.float64), (1, 3)))
    mesh = Mesh(points, cells={"triangle": torch.tensor([[0, 1, 2]])}, equations={"law": equation})
    fields = Fields(torch.rand(4, 1, 3), on_mesh(3), ("u",), parameters={"a": torch.rand(4)}, laws=("mass",), mesh=mesh)
    store.write(folder / "ours.h5", fields)
    return folder / "ours.h5"


def damage(data: bytes, draw: random.Random) -> bytes:
    """Bytes with one kind of damage."""
    if not data:
        return data
    kind = draw.randrange(7)
    at = draw.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(draw.choice((1, 4, 32))):
            changed[draw.randrange(len(data))] = draw.randrange(256)
        return bytes(changed)
    if kind == 2:
        length = draw.choice((4, 8, 64))
        return data[:at] + bytes([draw.choice((0, 255))]) * length + data[at + length :]
    if kind == 3:
        return data[:at] + data[at + draw.randrange(1, 64) :]
    if kind == 4:
        return data[:at] + draw.randbytes(draw.randrange(1, 64)) + data[at:]
    if kind == 5:  # in the first part of a file are its headers: sizes, types, offsets
        changed = bytearray(data)
        at = draw.randrange(min(len(data), 2048))
        changed[at] ^= 1 << draw.randrange(8)
        return bytes(changed)
    other = draw.randrange(len(data))
    return data[: min(at, other)] + data[max(at, other) :]


def trial(valid: Path, draw: random.Random) -> str | None:
    """What went wrong with one damaged copy, None if nothing did."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / valid.name
        (shutil.copytree if valid.is_dir() else shutil.copy)(valid, copy)
        files = sorted(file for file in copy.rglob("*") if file.is_file()) if copy.is_dir() else [copy]
        victim = draw.choice(files)
        victim.write_bytes(damage(victim.read_bytes(), draw))
        signal.alarm(SECONDS)
        try:
            opened = pde_datasets.open(copy)
            if not isinstance(opened, Fields):
                return f"got a {type(opened).__name__}"
            if not torch.isfinite(opened.values).all():
                return "values that are not finite"
        except ValueError as error:
            return f"an error of several lines: {error}" if "\n" in str(error) else None
        except Exception:
            return traceback.format_exc()
        finally:
            signal.alarm(0)
    return None


def fuzz(name: str, count: int) -> int:
    """Damaged copies of one file that did not behave, out of so many."""
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        valid = writers()[name](Path(folder))
        opened: Any = pde_datasets.open(valid)
        assert isinstance(opened, Fields)
        for number in range(count):
            print(f"trial {number} of {name}", flush=True)
            wrong = trial(valid, random.Random(zlib.crc32(name.encode()) + number))
            if wrong is not None:
                bad += 1
                print(f"trial {number} of {name}: {wrong}", flush=True)
    return bad


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(min(1, sum(fuzz(name, int(sys.argv[1])) for name in sys.argv[2:])))
