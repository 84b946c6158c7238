"""The tables of the code that the page of methods shows, by title."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pcfm.configuration import COUPLINGS, SCHEDULES, SOURCES
from pcfm.coupling import Rectified
from pcfm.flow_map import OBJECTIVES
from pcfm.guidance import GUIDANCES
from pcfm.likelihood import DIVERGENCES
from pcfm.methods import METHODS, SOLVERS
from pcfm.objective import TIME_LAWS
from pcfm.samplers.times import TIMES

TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "Schedules": SCHEDULES,
    "Couplings": {**COUPLINGS, "rectified": Rectified},
    "Sources": SOURCES,
    "Laws of times in training": TIME_LAWS,
    "Spacings of steps": TIMES,
    "Solvers": SOLVERS,
    "Divergences": DIVERGENCES,
    "Guidance": GUIDANCES,
    "Sampling methods": METHODS,
    "Objectives of few-step maps": OBJECTIVES,
}
