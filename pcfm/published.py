"""Published results on the suites of the benchmark, as printed, each table with its source.

Values are in units of 1e-2, but for distances between features. Where a paper prints 0 it gives no threshold; None is what it does not
report. No spread over seeds is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Row = Mapping[str, float | None]


@dataclass(frozen=True)
class Published:
    """Results of one paper on one problem.

    Attributes:
        title: paper and table in a few words.
        source: the same in full.
        rows: values by method, as the paper calls it, and metric.
    """

    title: str
    source: str
    rows: Mapping[str, Row]


OURS: dict[str, str] = {
    "PCFM": "pcfm-published",
    "ECI": "eci",
    "DiffusionPDE": "diffusionpde",
    "D-Flow": "d-flow",
    "PDM": "pdm",
    "FFM": "unconstrained",
}
"""Our name of the methods in published tables; others have no counterpart here, such as models trained otherwise."""

_PCFM = "Utkarsh et al., Physics-constrained flow matching, NeurIPS 2025, arXiv:2506.04171, table 3"
_PMOSFM = "arXiv:2609.40287, table 9, on the problems of arXiv:2506.04171"
_METHODS = ("PCFM", "ECI", "DiffusionPDE", "D-Flow", "PDM", "FFM")


def _table(**metrics: tuple[float | None, ...]) -> Published:
    """Table 3, its metrics as keywords with a value for each method."""
    names = {"ic": "CE(IC)", "bc": "CE(BC)", "cl": "CE(CL)"}
    rows = {method: {names.get(key, key.upper()): values[i] for key, values in metrics.items()} for i, method in enumerate(_METHODS)}
    return Published("PCFM, table 3", _PCFM, rows)


def _later(conserved: str, **methods: tuple[float | None, ...]) -> Published:
    """Rows of table 9: MMSE, SMSE, error of the given data, of the conserved quantity, FPD."""
    names = ("MMSE", "SMSE", conserved, "CE(CL)", "FPD")
    return Published("PMosFM, table 9", _PMOSFM, {method: dict(zip(names, values, strict=True)) for method, values in methods.items()})


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "heat-ic": (
        _table(
            mmse=(0.241, 0.697, 4.49, 1.97, 0.45, 4.56),
            smse=(0.937, 0.973, 3.93, 1.14, 0.02, 3.51),
            ic=(0.0, 0.0, 599.0, 102.0, 0.0, 579.0),
            cl=(0.0, 0.0, 2.06, 64.8, 0.0, 2.11),
            fpd=(1.22, 1.34, 1.70, 2.70, 0.17, 1.77),
        ),
        _later("CE(IC)", PBFM=(0.043, 0.242, 24.2, 57.5, None), PMosFM=(0.016, 0.003, 0.0, 0.0, 0.0806)),
    ),
    "navier-stokes-ic": (
        _table(
            mmse=(4.59, 5.23, 17.4, None, 12.21, 16.5),
            smse=(4.17, 7.28, 9.48, None, 6.61, 7.90),
            ic=(0.0, 0.0, 288.0, None, 0.0, 328.0),
            cl=(0.0, 0.0, 21.4, None, 0.0, 18.6),
            fpd=(1.00, 1.04, 3.70, None, 2.01, 2.81),
        ),
        _later("CE(IC)", PMosFM=(4.41, 3.24, None, None, 1.01)),
    ),
    "reaction-diffusion-ic": (
        _table(
            mmse=(0.026, 0.324, 3.16, 0.318, 1.74, 2.92),
            smse=(0.583, 0.060, 2.54, 6.86, 0.43, 2.54),
            ic=(0.0, 0.0, 451.0, 215.0, 0.0, 445.0),
            cl=(0.0, 6.00, 3.82, 29.7, 0.0, 3.87),
            fpd=(15.7, 136.0, 44.1, 28.3, 109.0, 24.9),
        ),
        _later("CE(IC)", PBFM=(0.018, 0.017, 33.4, 25.3, None), PMosFM=(0.042, 0.014, 0.0, 0.0, 26.3)),
    ),
    "burgers-bc": (
        _table(
            mmse=(0.335, 0.359, 5.42, 0.224, 11.8, 4.86),
            smse=(0.123, 0.089, 1.30, 0.948, 2.67, 1.38),
            bc=(0.0, 20.3, 426.0, 95.7, 0.0, 409.0),
            cl=(0.0, 15.7, 6.20, 15.0, 0.0, 6.91),
            fpd=(0.292, 0.307, 25.9, 1.44, 6.41, 24.7),
        ),
        _later("CE(BC)", PBFM=(1.49, 4.63, 102.3, 35.5, 39.7), PMosFM=(0.120, 0.0396, 0.0, 0.0, 0.409)),
    ),
    "burgers-ic": (
        _table(
            mmse=(0.052, 10.0, 14.3, 9.97, 153.0, 13.7),
            smse=(0.272, 6.65, 8.06, 7.91, 2.62, 7.90),
            ic=(0.0, 0.0, 471.0, 397.0, 0.0, 462.0),
            cl=(0.0, 205.0, 6.22, 8.66, 0.0, 6.91),
            fpd=(0.101, 1.31, 35.8, 22.1, 99.7, 33.5),
        ),
        _later("CE(IC)", PBFM=(0.112, 0.439, 47.4, 18.6, 2.20), PMosFM=(0.030, 0.019, 0.0, 0.0, 0.283)),
    ),
}
"""Tables by suite: all of a fixed initial state, or of fixed boundary data."""
