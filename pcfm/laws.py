"""Laws by name: `NAME` or `NAME:key=value,key=value`, with the names and keys of the Python classes."""

from __future__ import annotations

from collections.abc import Sequence

from constraints import Constraint, Intersection
from pcfm.lawbook import LAWS, Context, Options, parse


def build(text: str, context: Context) -> Constraint:
    """The constraint that a text names, for fields of a context.

    Raises:
        ValueError: an unknown law or key, a value that cannot be known, or a law that does not fit the grid.
    """
    name, options = _completed(text, context)
    return LAWS[name].build(context, options)


def _completed(text: str, context: Context) -> tuple[str, Options]:
    """Name and options of a law, with what its source states and reference data do not replace."""
    name, options = parse(text)
    for stated in context.stated:
        other, known = parse(stated)
        agree = all(options.get(key, value) == value for key, value in known.items())
        if "value" in known:  # a value is that of the same quantity: of these channels, as an integral or a mean
            agree = agree and all(options.get(key) in (None, known.get(key), "false") for key in ("mean", "channels"))
        if other == name and agree and not (context.reference is not None and "value" in known):
            options = {**known, **options}
    return name, options


def self_contained(text: str) -> bool:
    """Whether a law needs no data beside the fields it is about."""
    return "file" not in LAWS[parse(text)[0]].keys


def standing(texts: tuple[str, ...], context: Context) -> tuple[str, ...]:
    """Those of some laws that can be stated of fields on their own: values are said, or conserved, and not those of reference data."""
    kept = []
    for text in texts:
        name, options = _completed(text, context)
        borrowed = "value" in LAWS[name].keys and "value" not in options and context.reference is not None
        if self_contained(text) and not borrowed and name != "problem":  # which is stated by the settings kept beside the fields
            kept.append(":".join([name, *filter(None, [",".join(f"{key}={value}" for key, value in options.items())])]))
    return tuple(dict.fromkeys(kept))


def labelled(texts: tuple[str, ...], context: Context) -> list[tuple[str, Constraint]]:
    """Each law of the texts with what to call it: its text, and its own name besides where a text stands for several.

    Raises:
        ValueError: no law at all, or as `build`.
    """
    if not texts:
        raise ValueError(f"expects at least one law. Known: {', '.join(LAWS)}.")
    found = []
    for text in texts:
        leaves = build(text, context).leaves()
        found += [(text if len(leaves) == 1 else f"{text} ({leaf.name})", leaf) for leaf in leaves]
    return found


def build_all(texts: tuple[str, ...], context: Context) -> Constraint:
    """All laws at once; errors as `labelled`."""
    return joined([law for _, law in labelled(texts, context)])


def joined(laws: Sequence[Constraint]) -> Constraint:
    """One law, or several at once."""
    return laws[0] if len(laws) == 1 else Intersection(*laws)


__all__ = ["LAWS", "Context", "Options", "build", "build_all", "joined", "labelled", "parse", "self_contained", "standing"]
