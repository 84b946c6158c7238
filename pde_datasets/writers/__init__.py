"""Files that other programs read, written from fields: `WRITERS` by ending, and `Output`, a file of fields in the making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

from pde_datasets.fields import Fields

Tell = Callable[[int], None]
"""Told how many samples are written."""


@dataclass(frozen=True)
class FileWriter:
    """A kind of file that fields can be written to; its module is imported when it is used.

    Attributes:
        module: with `check` and `write`.
        description: what is written.
    """

    module: str
    description: str

    def check(self, path: Path, fields: Fields, overwrite: bool) -> None:
        """Refuse, before any work, fields that do not fit this kind of file; no value of theirs is read.

        Raises:
            ValueError: they do not, or a file is there and not to be overwritten.
        """
        import_module(f"{__name__}.{self.module}").check(path, fields, overwrite)

    def __call__(self, path: Path, fields: Fields, overwrite: bool, tell: Tell) -> dict[Path, int]:
        """Write fields, over what is there if asked to; the files with the number of samples in each."""
        written: dict[Path, int] = import_module(f"{__name__}.{self.module}").write(path, fields, overwrite, tell)
        return written


_OURS = FileWriter("own", "our layout")

WRITERS: dict[str, FileWriter] = {
    ".h5": _OURS,
    ".hdf5": _OURS,
    ".nc": FileWriter("netcdf", "netCDF with CF attributes"),
    ".vti": FileWriter("vti", "ParaView, a file a sample and time"),
}


def writer_of(path: Path) -> FileWriter:
    """What writes a file of this name: the ending says it, in every command.

    Raises:
        ValueError: nothing does.

    Example:
        >>> writer_of(Path("flow.nc")).description
        'netCDF with CF attributes'
    """
    if path.suffix.lower() not in WRITERS:
        kinds = ", ".join(f"{ending} ({writer.description})" for ending, writer in WRITERS.items())
        raise ValueError(f"a file of fields ends in one of {kinds}; got '{path.name}'. Give it one of these endings.")
    return WRITERS[path.suffix.lower()]


class Output:
    """A file of fields in the making, whatever its ending: what is written resumably and with certificates is a file of our layout.

    That is the file itself where it ends in .h5 or .hdf5. Another kind is exported from it at the end by `deliver`, certificates as
    parameters, and the file of our layout, NAME.h5 beside it, is removed.

    Arguments:
        out: the file asked for.
        like: fields of the kind that will come, all of them, of which no value is read.
        overwrite: replace what is there.

    Attributes:
        file: the file of our layout to write.

    Raises:
        ValueError: an ending that says nothing, fields that do not fit its kind of file, a file that is there, or too small a disk.
    """

    def __init__(self, out: Path, like: Fields, *, overwrite: bool = False) -> None:
        from pde_datasets.store import check_space

        self.out, self.overwrite, self.writer = out, overwrite, writer_of(out)
        exported = self.writer is not _OURS
        self.file = out.with_name(f"{out.name}.h5") if exported else out
        check_space(self.file, like.nbytes * (2 if exported else 1))
        self.writer.check(out, like, overwrite)

    def deliver(self, tell: Tell = lambda written: None) -> None:
        """Make the file asked for out of the finished one of our layout."""
        if self.file == self.out:
            return
        from pde_datasets.store import certificate, read

        fields = read(self.file)
        certified = {f"certificate_{name}": rows for name, rows in certificate(self.file).items()}
        self.writer(self.out, replace(fields, parameters={**fields.parameters, **certified}), self.overwrite, tell)
        self.file.unlink()
