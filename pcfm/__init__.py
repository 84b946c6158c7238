"""Learning to generate fields, and sampling them under constraints.

Public names are imported when first used, so that `import pcfm` and `pcfm --help` cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pcfm.flow import Flow
    from pcfm.generation import Samples, sample
    from pcfm.shelf import load, wrap

_HOME = {"load": "shelf", "wrap": "shelf", "Flow": "flow", "Samples": "generation", "sample": "generation"}

__all__ = ["Flow", "Samples", "load", "sample", "wrap"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"pcfm.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pcfm' has no attribute '{name}'")
