"""Where fields come from: embedded solvers and files."""

from pde_datasets.loaders import open
from pde_datasets.problem import Fields, Problem
from pde_datasets.problems import PROBLEMS, problem_of

__all__ = ["PROBLEMS", "Fields", "Problem", "open", "problem_of"]
