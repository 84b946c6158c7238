r"""Evolution equations on a line, term by term, and the laws that follow from their terms.

$$u_t = \sum_k c_k\,T_k(u),\qquad T_k \in \{u,\ u^2,\ u^3,\ u_x,\ u u_x,\ u_{xx},\ u_{xxx},\ u_{xxxx}\},$$

or, for a complex field, $h_t = i\,(a h_{xx} + b |h|^2 h + \dots)$. On a period,

* no term without a derivative: $\int u$ is conserved;
* no term but transport ($u_x$, $u u_x$) and dispersion ($u_{xxx}$): $\int u^2/2$ is conserved; with damping besides
  ($c > 0$ for $u_{xx}$, $c < 0$ for $u_{xxxx}$, $u$, $u^3$) it does not rise;
* $u_t = -a u u_x - b u_{xxx}$: the Hamiltonian $\int a u^3/6 - b u_x^2/2$ is conserved;
* $u_t = d u_{xx} + a u + b u^2 + c u^3$, $d > 0$: it descends the free energy $\int d u_x^2/2 - a u^2/2 - b u^3/3 - c u^4/4$;
  with $a > 0$, $b = 0$, $c < 0$ values within the two wells $\pm\sqrt{-a/c}$ stay there;
* transport and diffusion alone: no value leaves the range of the first time;
* $i h_t + a h_{xx} + b |h|^2 h = 0$: $\int |h|^2$, $\int \mathrm{Im}\,\bar h h_x$ and
  $\int -a\,\mathrm{Re}\,\bar h h_{xx} - b|h|^4/2$ are conserved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

REAL = ("u", "u^2", "u^3", "u_x", "u u_x", "u_xx", "u_xxx", "u_xxxx")
"""Terms of an equation of a real field, without their coefficients."""

COMPLEX = ("h", "|h|^2 h", "h_xx")
"""Terms of one of a complex field; the coefficient of each is imaginary, i times what is kept."""

Range = tuple[float, float]


@dataclass(frozen=True)
class Evolution:
    """An evolution equation of one field on a line.

    Attributes:
        terms: coefficient of each term of the right-hand side, the least and largest of all samples; of a complex field without the i.
        complex: whether the field is.
    """

    terms: Mapping[str, Range]
    complex: bool = False

    def sign(self, term: str) -> int:
        """1 or -1 where the coefficient of a term has that sign in all samples, 0 where there is no such term, 2 where signs differ."""
        low, high = self.terms.get(term, (0.0, 0.0))
        return 0 if low == high == 0 else 1 if low > 0 else -1 if high < 0 else 2

    def number(self, term: str) -> float | None:
        """The coefficient of a term, zero if there is none; None where samples differ in it."""
        low, high = self.terms.get(term, (0.0, 0.0))
        return low if low == high else None

    def __str__(self) -> str:
        """With all terms on the left, as such equations are written."""
        sign, lead = (1, "i h_t") if self.complex else (-1, "u_t")
        parts = [lead]
        for term in COMPLEX if self.complex else REAL:
            low, high = self.terms.get(term, (0.0, 0.0))
            if low == high == 0:
                continue
            value = sign * low
            size = "" if abs(value) == 1 else f"{abs(value):.8g} "
            parts.append(f"{'-' if value < 0 else '+'} {size}{term}" if low == high else f"+ ({sign * low:g} .. {sign * high:g}) {term}")
        return f"{' '.join(parts)} = 0"


def laws(equation: Evolution, channels: tuple[str, ...], *, periodic: bool, zero: bool = False) -> list[str]:
    """Laws that follow from an equation, in the notation of the command line.

    Arguments:
        equation: of the field.
        channels: the channel of a real field; those of the real and imaginary part of a complex one.
        periodic: whether the axis is.
        zero: whether values vanish at both ends of an axis that is not; of other ends nothing follows, as they may let anything in.
    """
    if equation.complex:
        return _schroedinger(equation, *channels) if periodic else []
    if not (periodic or zero):
        return []
    (u,) = channels
    there = {term for term in REAL if equation.sign(term)}
    reactions = there & {"u", "u^2", "u^3"}
    found = []
    if periodic and not reactions:
        found.append(f"mass:channels={u}")
    damped = {"u_xx": 1, "u_xxxx": -1, "u": -1, "u^3": -1}
    if periodic and there <= {"u_x", "u u_x", "u_xxx"}:
        found.append(f"energy:channels={u}")
    elif there <= {"u_x", "u u_x", "u_xxx", *damped} and all(equation.sign(term) in (0, sign) for term, sign in damped.items()):
        # between zeros, derivatives above the second ask for more at the ends
        found += [f"energy-decay:channels={u}"] if periodic or not there & {"u_xxx", "u_xxxx"} else []
    a, b = equation.number("u u_x"), equation.number("u_xxx")
    if periodic and there == {"u u_x", "u_xxx"} and a is not None and b is not None:
        found.append(f"integral:density={_sum((-a, f'{u}^3/6'), (b, f'{u}_x^2/2'))},name=Hamiltonian")
    if periodic and "u_xx" in there and reactions and there <= {"u_xx", "u", "u^2", "u^3"} and equation.sign("u_xx") == 1:
        found += _gradient_flow(equation, u)
    if there <= {"u_x", "u u_x", "u_xx"} and equation.sign("u_xx") in (0, 1) and there:
        found.append("maximum-principle")
    return found


def _gradient_flow(equation: Evolution, u: str) -> list[str]:
    """Descent of a free energy, and the wells that values do not leave."""
    numbers = [equation.number(term) for term in ("u_xx", "u", "u^2", "u^3")]
    if None in numbers:
        return []
    d, a, b, c = (float(number or 0.0) for number in numbers)
    energy = _sum((d, f"{u}_x^2/2"), (-a, f"{u}^2/2"), (-b, f"{u}^3/3"), (-c, f"{u}^4/4"))
    found = [f"integral-decay:density={energy},name=free energy"]
    if a > 0 and b == 0 and c < 0:
        well = math.sqrt(-a / c)
        found.append(f"bounds:lower={-well:.10g},upper={well:.10g}")
    return found


def _schroedinger(equation: Evolution, real: str, imaginary: str) -> list[str]:
    r"""With $i h_t + a h_{xx} + b|h|^2 h = 0$."""
    a, b, c = (equation.number(term) for term in ("h_xx", "|h|^2 h", "h"))
    size = f"({real}^2+{imaginary}^2)"
    found = [
        f"integral:density={size},name=integral of |h|^2",
        f"integral:density={real}*{imaginary}_x-{imaginary}*{real}_x,name=momentum of h",
    ]
    if a is not None and b is not None and c is not None:
        energy = _sum((-a, f"({real}*{real}_xx+{imaginary}*{imaginary}_xx)"), (-b, f"{size}^2/2"), (-c, size))
        found.append(f"integral:density={energy},name=energy of h")
    return found


def _sum(*terms: tuple[float, str]) -> str:
    """An expression, without what vanishes."""
    text = "".join(f"{'-' if c < 0 else '+'}{'' if abs(c) == 1 else f'{abs(c):.12g}*'}{term}" for c, term in terms if c)
    return text.removeprefix("+")


# --- equations in words ------------------------------------------------------------------------------------------------------------

_TERM = re.compile(r"(?P<coefficient>.*?)(?P<term>u u_x|u_x{1,4}|u\^[23]|u)")


def parse(text: str, parameters: Mapping[str, Range]) -> Evolution | None:
    """The equation that a text states, such as `u_t + u u_x = viscosity u_xx`; None if it is not of this kind.

    Arguments:
        text: the equation of a real field u on a line.
        parameters: least and largest value of those that stand for numbers in it.

    Example:
        >>> str(parse("u_t + (u^2/2)_x = nu u_xx", {"nu": (0.01, 0.01)}))
        'u_t + u u_x - 0.01 u_xx = 0'
    """
    left, equals, right = text.replace("(u^2/2)_x", "u u_x").partition("=")
    if not equals or not re.match(r"\s*u_t(?![a-z])", left) or "=" in right:
        return None
    total: dict[str, Range] = {}
    for side, sign in ((left.strip().removeprefix("u_t"), -1.0), (right, 1.0)):
        for mark, words in re.findall(r"([+-]?)\s*((?:\([^()]*\)|[^+()-])+)", side):
            term = _term(words.strip(), parameters)
            if term is None:
                return None
            name, (low, high) = term
            if name:
                ends = sorted(sign * (-1.0 if mark == "-" else 1.0) * value for value in (low, high))
                before = total.get(name, (0.0, 0.0))
                total[name] = (before[0] + ends[0], before[1] + ends[1])
    rest = re.sub(r"[+-]?\s*(?:\([^()]*\)|[^+()-])+", "", left + right)
    return Evolution(total) if total and not rest.strip() else None


def _term(words: str, parameters: Mapping[str, Range]) -> tuple[str, Range] | None:
    """A term and its coefficient; no name for zero."""
    if words in ("", "0"):
        return "", (0.0, 0.0)
    found = _TERM.fullmatch(words)
    if found is None:
        return None
    low = high = 1.0
    for factor in re.findall(r"[/*]?\s*[^\s*/()]+", found["coefficient"]):
        divided, name = factor.startswith("/"), factor.lstrip("/* ").strip()
        try:
            ends = parameters.get(name) or ((math.pi, math.pi) if name == "pi" else (float(name), float(name)))
        except ValueError:
            return None
        values = [value for value in ends if value != 0 or not divided]
        if len(values) < 2:
            return None
        products = [x / y if divided else x * y for x in (low, high) for y in values]
        low, high = min(products), max(products)
    return found["term"], (low, high)
