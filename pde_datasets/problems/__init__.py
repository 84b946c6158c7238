"""Embedded problems, one file an equation."""

from pde_datasets.problem import Fields, Problem
from pde_datasets.problems.burgers import Burgers
from pde_datasets.problems.heat import Heat
from pde_datasets.problems.kolmogorov import Kolmogorov
from pde_datasets.problems.taylor_green import TaylorGreen

PROBLEMS: dict[str, type[Problem]] = {problem.name: problem for problem in (Heat, Burgers, Kolmogorov, TaylorGreen)}


def problem_of(fields: Fields) -> Problem | None:
    """The problem, with its settings, that made some fields and whose laws they obey; None for fields of another origin.

    Raises:
        ValueError: the problem or one of its settings is not known here.
    """
    name, settings = fields.attributes.get("problem"), fields.attributes.get("problem_settings")
    if name is None or settings is None:
        return None
    try:
        return PROBLEMS[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"fields of problem '{name}' expect a problem this version knows, with its settings; {error}.") from error


__all__ = ["PROBLEMS", "problem_of", "Burgers", "Heat", "Kolmogorov", "TaylorGreen"]
