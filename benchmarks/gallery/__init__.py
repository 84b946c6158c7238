"""The methods of the flow-matching core, one short script each: what it is, a figure, and its numbers beside closed forms."""

EXHIBITS = (
    "paths",
    "times",
    "transport",
    "bridge",
    "geodesic",
    "functions",
    "solvers",
    "stochastic",
    "likelihood",
    "guidance",
    "posterior",
    "laws",
    "inference",
    "rectified",
    "optimal",
    "few_steps",
    "converted",
    "calibration",
    "errors",
)
"""Scripts, in the order of the page: each has `show(full)`."""
