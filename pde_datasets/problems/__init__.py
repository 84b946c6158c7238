"""Embedded problems, one file an equation."""

from pde_datasets.problem import Problem
from pde_datasets.problems.burgers import Burgers
from pde_datasets.problems.heat import Heat
from pde_datasets.problems.kolmogorov import Kolmogorov
from pde_datasets.problems.taylor_green import TaylorGreen

PROBLEMS: dict[str, type[Problem]] = {problem.name: problem for problem in (Heat, Burgers, Kolmogorov, TaylorGreen)}

__all__ = ["PROBLEMS", "Burgers", "Heat", "Kolmogorov", "TaylorGreen"]
