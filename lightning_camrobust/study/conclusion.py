"""Whether the ranking of methods survives other settings."""

from typing import Literal

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.findings import Estimate, ReadingRow, Stability
from lightning_camrobust.study.outcomes import Floats, Outcomes
from lightning_camrobust.study.rankings import best_first, kendall_tau, order_signs
from lightning_camrobust.study.settings import Setting, ranked_kind, ranked_settings
from lightning_camrobust.study.statistics.image_means import check_level
from lightning_camrobust.study.statistics.intervals import LEAST_IMAGES, MOST_UNDEFINED
from lightning_camrobust.study.swaps import Swap, find_swaps, swaps_text


def judge_stability(
    outcomes: Outcomes, *, least_tau: float = 0.8, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Stability:
    """Rank the methods by RM under every setting, and compare each ranking with the main one.

    Methods are ranked on photometric noises; if there are none, on the kind of the first noise, and every reason says
    so. Only ranks count, as p and other settings change the scale of RM. Scores that differ by rounding are tied. Where
    a reading could not score every pair, or was taken on some images only, tau compares it with the main similarity on
    the pairs that it did score. The interval of tau comes from resampled images, the same for both rankings
    (percentiles). It can lie below tau itself, as resampling adds noise to the rankings; there is none where too few
    images carry C or R.

    A tau below the limit says that the order changed, not that it matters. The reasons therefore tell a reversal
    beyond chance (two methods that differ in either setting, in opposite directions) from methods that are not told
    apart in either, whose order is luck; ``change`` says whether all changes are of that sort. A tau that is undefined
    does not count as stable.

    Args:
        outcomes: Of one model, with its readings; two methods or more.
        least_tau: Kendall's tau-b with the main ranking that every setting must reach, in [-1, 1].
        resamples: Of the bootstrap over images, 100 or more.
        seed: Of the resamples.
        confidence: Of the intervals, in (0, 1).

    Returns:
        One row a setting: ``"main"``, then every reading, then ``"averaging=macro"``; whether all reach the limit; and
        for each that does not, who changes places.

    Raises:
        ArgumentError: If there are fewer than two methods, no image or no noise, or a setting is out of range.

    Example:
        >>> from lightning_camrobust.study.outcomes import Noise
        >>> images, nothing = tuple("abcdefgh"), np.zeros(8, dtype=np.int64)
        >>> same = np.tile([True, False], (8, 1))
        >>> scores = np.tile([[0.9, 0.3], [0.8, 0.4]], (8, 1, 1))
        >>> outcomes = Outcomes(
        ...     "net", "layer4", "pets", images, nothing, ("gradcam", "layercam"), (Noise("fog", 1), Noise("fog", 5)),
        ...     nothing, np.zeros((8, 2), dtype=np.int64), same, scores, np.full(8, 0.1), {"p=0.9": scores[:, ::-1]},
        ... )
        >>> found = judge_stability(outcomes)
        >>> [(row.label, row.tau) for row in found.rows], found.stable
        ([('main', 1.0), ('p=0.9', -1.0), ('averaging=macro', 1.0)], False)
    """
    check_level(confidence, name="confidence", speaker="judge_stability")
    if not -1 <= least_tau <= 1:
        raise ArgumentError(f"`least_tau` must lie in [-1, 1], as Kendall's tau does; got {least_tau!r}. Try 0.8.")
    settings = ranked_settings(outcomes, resamples=resamples, seed=seed)
    rows = tuple(_row(setting, confidence) for setting in settings)
    kind = ranked_kind(outcomes)
    place = "" if kind == "photometric" else f" ({kind} noises, as no photometric one was measured)"
    swaps = [
        find_swaps(setting, confidence=confidence) if row.tau < least_tau else ()
        for setting, row in zip(settings, rows, strict=True)
    ]
    return Stability(
        methods=outcomes.methods,
        rows=rows,
        stable=all(row.tau >= least_tau for row in rows),
        reasons=_reasons(settings, rows, swaps, least_tau=least_tau, place=place),
        least_tau=least_tau,
        change=_change(rows, swaps, least_tau=least_tau),
    )


def tau_matrix(rows: tuple[ReadingRow, ...]) -> Floats:
    """Compare the rankings under all settings with each other.

    Args:
        rows: Of :class:`~lightning_camrobust.study.findings.Stability`.

    Returns:
        Kendall's tau-b ``(rows, rows)`` float64, symmetric; NaN where it is undefined.

    Example:
        >>> rows = [ReadingRow("", scores, (), 1.0, Estimate(1, 1, 1), 5) for scores in [(0.1, 0.2), (0.4, 0.3)]]
        >>> tau_matrix(tuple(rows)).tolist()
        [[1.0, -1.0], [-1.0, 1.0]]
    """
    signs = order_signs(np.array([row.robustness for row in rows]))
    return kendall_tau(signs[:, None], signs[None])


def _row(setting: Setting, confidence: float) -> ReadingRow:
    main = setting.reference or setting
    ours, theirs = main.robustness, setting.robustness
    tau = _tau_of(main, setting)
    resampled = kendall_tau(order_signs(ours.replicates), order_signs(theirs.replicates))
    carried = min(main.least_images, setting.least_images) >= LEAST_IMAGES
    return ReadingRow(
        label=setting.label,
        robustness=tuple(float(score) for score in theirs.value),
        ranking=tuple(setting.methods[position] for position in best_first(theirs.value)),
        tau=tau,
        tau_interval=Estimate(tau, *(_percentiles(resampled, confidence) if carried else (np.nan, np.nan))),
        num_images=setting.num_images,
    )


def _tau_of(first: Setting, second: Setting) -> float:
    return float(kendall_tau(order_signs(first.robustness.value), order_signs(second.robustness.value)))


def _percentiles(resampled: Floats, confidence: float) -> tuple[float, float]:
    """Plain ones: the corrections of BCa are made for scores that vary smoothly, and tau jumps."""
    defined = resampled[~np.isnan(resampled)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(resampled):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _change(
    rows: tuple[ReadingRow, ...], swaps: list[tuple[Swap, ...]], *, least_tau: float
) -> Literal["none", "chance", "real"]:
    if all(row.tau >= least_tau for row in rows):
        return "none"
    undefined = any(np.isnan(row.tau) for row in rows)
    told_apart = any(swap.told_apart != "neither" for each in swaps for swap in each)
    return "real" if undefined or told_apart else "chance"


def _reasons(
    settings: tuple[Setting, ...],
    rows: tuple[ReadingRow, ...],
    swaps: list[tuple[Swap, ...]],
    *,
    least_tau: float,
    place: str,
) -> tuple[str, ...]:
    if np.isnan(rows[0].tau):
        cause = _why_no_tau(settings[0])
        return (f"main{place}: there is no ranking that other settings could be compared with; {cause}.",)
    reasons = []
    for setting, row, changed in zip(settings, rows, swaps, strict=True):
        if np.isnan(row.tau):
            reasons.append(f"{row.label}{place}: Kendall tau is undefined; {_why_no_tau(setting)}.")
        elif row.tau < least_tau:
            reasons.append(f"{row.label}{place}: {_tau_text(row.tau_interval)} < {least_tau:g}; {swaps_text(changed)}.")
    return tuple(reasons)


def _why_no_tau(setting: Setting) -> str:
    unranked = next(each for each in (setting, setting.reference) if each and np.isnan(_tau_of(each, each)))
    return (
        unranked.why_undefined()
        or f"all methods have one RM ({unranked.robustness.value[0]:.2f}) in {unranked.label!r}"
    )


def _tau_text(tau: Estimate) -> str:
    interval = "no interval" if np.isnan(tau.low) else f"{tau.low:.2f} to {tau.high:.2f}"
    return f"Kendall tau {tau.value:.2f} ({interval})"
