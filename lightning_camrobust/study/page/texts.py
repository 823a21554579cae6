"""How numbers are written for readers: undefined is a dash, never "nan"."""

import math
from collections.abc import Sequence

from lightning_camrobust.study.findings import Estimate

UNDEFINED = "–"
LEAST_P = 0.001


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Write a number with a fixed count of decimals.

    Args:
        value: Any; NaN is undefined.
        digits: Decimals.
        signed: Whether a positive number carries a plus.

    Returns:
        The number with a true minus sign, or a dash. What rounds to zero carries no sign.

    Example:
        >>> number(0.41249), number(-0.0001), number(float("nan")), number(0.5, 1, signed=True)
        ('0.412', '0.000', '–', '+0.5')
    """
    if math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{abs(value):,.{digits}f}"
    if not float(text.replace(",", "")):
        return text
    return ("−" if value < 0 else "+" if signed else "") + text


def interval(estimate: Estimate, digits: int = 3, *, signed: bool = False) -> str:
    """Write the confidence interval of an estimate; nothing if a bound is undefined.

    Example:
        >>> interval(Estimate(0.4, 0.25, 0.5))
        '[0.250, 0.500]'
    """
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return ""
    return f"[{number(estimate.low, digits, signed=signed)}, {number(estimate.high, digits, signed=signed)}]"


def with_interval(estimate: Estimate, digits: int = 3, *, signed: bool = False) -> str:
    """Write an estimate and its interval in one line.

    Example:
        >>> with_interval(Estimate(0.4, 0.25, 0.5), 2)
        '0.40 [0.25, 0.50]'
    """
    return f"{number(estimate.value, digits, signed=signed)} {interval(estimate, digits, signed=signed)}".strip()


def p_value(value: float) -> str:
    """Write a p-value.

    Example:
        >>> p_value(3e-9), p_value(0.0214), p_value(float("nan"))
        ('< 0.001', '0.021', '–')
    """
    return f"< {LEAST_P}" if value < LEAST_P else number(value)


def p_equals(value: float) -> str:
    """Write a p-value into a sentence.

    Example:
        >>> p_equals(3e-9), p_equals(0.0214), p_equals(float("nan"))
        ('p < 0.001', 'p = 0.021', 'p is undefined')
    """
    if math.isnan(value):
        return "p is undefined"
    return f"p {p_value(value)}" if value < LEAST_P else f"p = {p_value(value)}"


def share(value: float) -> str:
    """Write a share of one as a percentage.

    Example:
        >>> share(0.7524), share(float("nan"))
        ('75.2%', '–')
    """
    return UNDEFINED if math.isnan(value) else f"{number(100 * value, 1)}%"


def count(value: int) -> str:
    """Write a count with its thousands apart.

    Example:
        >>> count(18000)
        '18,000'
    """
    return f"{value:,}"


def duration(seconds: float) -> str:
    """Write a time span in the unit it is spoken of.

    Example:
        >>> duration(42.3), duration(1834), duration(7300), duration(float("nan"))
        ('42 s', '31 min', '2 h 2 min', '–')
    """
    if math.isnan(seconds):
        return UNDEFINED
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def joined(words: Sequence[str], last: str = "and") -> str:
    """Join words as a sentence does.

    Example:
        >>> joined(["a", "b", "c"]), joined(["a"])
        ('a, b and c', 'a')
    """
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def counted(value: int, thing: str, plural: str | None = None) -> str:
    """Write a count and what is counted.

    Example:
        >>> counted(1, "image"), counted(1000, "image"), counted(2, "class", "classes")
        ('1 image', '1,000 images', '2 classes')
    """
    return f"{count(value)} {thing if value == 1 else plural or thing + 's'}"


def anything(value: object) -> str:
    """Write a value whose kind is not known beforehand, such as a cell of a foreign table.

    Example:
        >>> anything(None), anything(float("nan")), anything(0.25), anything(True), anything(["a", 2])
        ('–', '–', '0.250', 'yes', 'a, 2')
    """
    if value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(anything, value)) or UNDEFINED
    return str(value)


def _float(value: float) -> str:
    if value and math.isfinite(value) and not 0.001 <= abs(value) < 1e7:
        return f"{value:.3g}".replace("-", "−")
    return number(value)
