"""How numbers are put into sentences."""

import numpy as np

from lightning_camrobust.study.findings import Estimate, PairRow

# Level of every test that a sentence rests on, whatever the confidence of the intervals.
ALPHA = 0.05


def difference_text(estimate: Estimate) -> str:
    """Write a difference with its interval.

    Args:
        estimate: Of a difference.

    Returns:
        Signed numbers, with as many digits as it takes to see that they are not zero.

    Example:
        >>> difference_text(Estimate(0.01234, 0.00041, 0.02))
        '+0.0123 (+0.0004 to +0.0200)'
    """
    digits = max(telling_digits(number, 0.0) for number in estimate)
    if np.isnan(estimate.low):
        return f"{estimate.value:+.{digits}f} (no interval)"
    return "{:+.{d}f} ({:+.{d}f} to {:+.{d}f})".format(*estimate, d=digits)


def leaves_zero_out(estimate: Estimate) -> bool:
    """Say whether an interval lies on one side of zero; without an interval it does not.

    Args:
        estimate: Usually of a difference.

    Returns:
        Whether it does.

    Example:
        >>> leaves_zero_out(Estimate(0.1, 0.05, 0.15)), leaves_zero_out(Estimate(0.1, -0.05, 0.25))
        (True, False)
    """
    return estimate.low > 0 or estimate.high < 0


def told_apart(row: PairRow) -> bool:
    """Say whether a comparison found a difference: by its corrected p-value, at 5%.

    Args:
        row: Two methods or two models.

    Returns:
        Whether it did; not without a p-value.

    Example:
        >>> nothing = Estimate(0.0, 0.0, 0.0)
        >>> told_apart(PairRow("robustness", "new", "old", nothing, 0.01, 0.06, float("nan"), 40, "cluster bootstrap"))
        False
    """
    return row.p_adjusted < ALPHA


def telling_digits(first: float, second: float) -> int:
    """Find how many digits it takes until two different numbers look different.

    Args:
        first: One number.
        second: Another.

    Returns:
        2..5; 2 also if no number of digits up to 5 tells them apart.

    Example:
        >>> telling_digits(0.41, 0.42), telling_digits(0.4101, 0.4099), telling_digits(0.4, 0.4)
        (2, 4, 2)
    """
    return next((each for each in range(2, 6) if round(first, each) != round(second, each)), 2)
