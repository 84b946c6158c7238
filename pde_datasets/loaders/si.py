"""Units as files of measurements and of commercial programs write them, and the SI unit and factor of each."""

from __future__ import annotations

_LENGTHS = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "km": 1e3}
_TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0, "h": 3600.0}
_OTHERS = {
    "": (1.0, "1"), "1": (1.0, "1"), "null": (1.0, "1"), "-": (1.0, "1"),
    "px": (1.0, "pixel"), "pix": (1.0, "pixel"), "pixel": (1.0, "pixel"),
    "Pa": (1.0, "Pa"), "kPa": (1e3, "Pa"), "K": (1.0, "K"), "kg/m^3": (1.0, "kg m-3"), "m^2/s": (1.0, "m2 s-1"), "1/s": (1.0, "s-1"),
}  # fmt: skip


def si(unit: str) -> tuple[float, str]:
    """What to multiply a number by, and the unit it then has, CF spelling; an unknown unit stays as it is.

    Example:
        >>> si("mm"), si("m/s"), si("furlong")
        ((0.001, 'm'), (1.0, 'm s-1'), (1.0, 'furlong'))
    """
    unit = unit.strip()
    if unit in _OTHERS:
        return _OTHERS[unit]
    length, _, time = unit.partition("/")
    if length in _LENGTHS and time in ("", *_TIMES):
        return _LENGTHS[length] / _TIMES.get(time, 1.0), "m s-1" if time else "m"
    return (_TIMES[unit], "s") if unit in _TIMES else (1.0, unit)
