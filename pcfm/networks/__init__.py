"""Networks for velocities: modules with forward(x, t, condition=None) on fields (B, C, *N)."""

from pcfm.networks.embedding import TwoTimes
from pcfm.networks.fourier_operator import FourierOperator
from pcfm.networks.perceptron import Perceptron
from pcfm.networks.residual import ResidualPerceptron
from pcfm.networks.transformer import PatchTransformer

__all__ = ["FourierOperator", "PatchTransformer", "Perceptron", "ResidualPerceptron", "TwoTimes"]
