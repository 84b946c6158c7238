"""Time steppers that the embedded problems share."""

from pde_datasets.solvers.exponential import ETDRK4

__all__ = ["ETDRK4"]
