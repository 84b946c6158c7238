"""Figures, numbers and pages of the gallery.

Usage: python -m benchmarks.gallery [NAME ...]

Runs the scripts that are named, or all, at full size. Figures go to docs/gallery/, numbers to benchmarks/results/gallery.json; from all
numbers there docs/gallery.md and docs/methods.md are written.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.gallery import EXHIBITS
from benchmarks.gallery.page import METHODS_PAGE, PAGE, gallery_page, make, methods_page, numbers, save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(EXHIBITS)}; all by default")
    names = parser.parse_args().names or EXHIBITS
    if unknown := set(names) - set(EXHIBITS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Take one of {', '.join(EXHIBITS)}.")
    torch.set_num_threads(1)
    broken = []
    for name in names:
        began = time.perf_counter()
        shown = make(name, full=True)
        print(f"{name}: {time.perf_counter() - began:.0f} s")
        for measure in shown.measures:
            limit = f"{'more than' if measure.control else 'within'} {measure.within:.3g}"
            print(f"  {measure.value:12.5g}  {limit} of {measure.exact:.6g}  {measure.of.__name__}: {measure.quantity}", flush=True)
        broken += [f"{name}: {measure.quantity}" for measure in shown.measures if not measure.held]
        save(name, shown)
    PAGE.write_text(gallery_page(numbers()))
    METHODS_PAGE.write_text(methods_page(numbers()))
    if broken:
        raise SystemExit("not as near as they should be:\n  " + "\n  ".join(broken))


if __name__ == "__main__":
    main()
