"""Discrete calculus on grids: differentiation schemes, vector operators, quadrature."""

from constraints.calculus.finite_difference import CentralDifference
from constraints.calculus.quadrature import integral, mean
from constraints.calculus.scheme import Scheme
from constraints.calculus.spectral import Spectral
from constraints.calculus.staggered import Staggered
from constraints.calculus.vector import curl, divergence, gradient, laplacian

__all__ = ["CentralDifference", "Scheme", "Spectral", "Staggered", "curl", "divergence", "gradient", "integral", "laplacian", "mean"]
