"""The scores of all methods under every setting that was measured, with common resamples."""

from dataclasses import dataclass, replace

import numpy as np

from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.outcomes import Floats, Kind, Outcomes
from lightning_camrobust.study.statistics.bootstrap import Resampling, bootstrap
from lightning_camrobust.study.statistics.distribution import Distribution
from lightning_camrobust.study.statistics.pair_sums import PairSums, pair_sums, side_by_side

MAIN = "main"
MACRO = "averaging=macro"


@dataclass(frozen=True)
class Setting:
    """The robustness of all methods under one setting.

    Attributes:
        label: Such as ``"main"``, ``"p=0.9"`` or ``"averaging=macro"``.
        methods: Labels.
        robustness: RM of each method, with its replicates; column = method.
        sums: What it was made from.
        reference: The main setting on the pairs that this setting could score; None for the main setting itself.
    """

    label: str
    methods: tuple[str, ...]
    robustness: Distribution
    sums: PairSums
    reference: "Setting | None" = None

    @property
    def num_images(self) -> int:
        """Images with a scored pair, for the method that has fewest."""
        return int((self.sums.same_count + self.sums.changed_count > 0).sum(axis=0).min())

    @property
    def least_images(self) -> int:
        """Images that carry C, or R, of the method for which this is fewest."""
        return min(int((counts > 0).sum(axis=0).min()) for counts in (self.sums.same_count, self.sums.changed_count))

    def why_undefined(self) -> str:
        """Say which methods have no RM, and why; empty if all have one."""
        totals = self.sums.total()
        causes: dict[str, list[str]] = {}
        for method, kept, changed in zip(self.methods, totals.same_count, totals.changed_count, strict=True):
            if kept == 0 or changed == 0:
                causes.setdefault(_cause(int(kept), int(changed)), []).append(method)
        return "; ".join(f"RM of {', '.join(methods)} is undefined, as {cause}" for cause, methods in causes.items())


def ranked_kind(outcomes: Outcomes) -> Kind:
    """Say which kind of noise methods are ranked on.

    Args:
        outcomes: Of one model.

    Returns:
        ``"photometric"`` if such noises were measured; else the kind of the first noise.

    Raises:
        ArgumentError: If there is no noise.
    """
    kinds = [noise.kind for noise in outcomes.noises]
    if not kinds:
        raise ArgumentError(f"`outcomes` of {outcomes.model!r} hold no noise. Measure at least one perturbation.")
    return "photometric" if "photometric" in kinds else kinds[0]


def ranked_settings(outcomes: Outcomes, *, resamples: int = 2000, seed: int = 0) -> tuple[Setting, ...]:
    """Score all methods under every setting, on the noises of :func:`ranked_kind`.

    Every resample draws the same images for all settings, so that rankings can be compared resample by resample.

    Args:
        outcomes: Of one model, with readings.
        resamples: Of the bootstrap over images, 100 or more.
        seed: Of the resamples.

    Returns:
        The main setting; every reading; and the main similarity averaged over each image's pairs first, then over
        images. Each uses the pairs that could be scored under it.

    Raises:
        ArgumentError: If there are fewer than two methods, no image or no noise, a reading has another shape, or a
            reading is called like one of the two settings that are always there.
    """
    if len(outcomes.methods) < 2 or not outcomes.images:
        raise ArgumentError(
            f"`outcomes` of {outcomes.model!r} hold {len(outcomes.methods)} method(s) and {len(outcomes.images)} "
            "image(s); a ranking needs two methods and one image or more. Measure further methods."
        )
    kind = ranked_kind(outcomes)
    _check_readings(outcomes)
    chosen = outcomes.of_kind(kind)
    similarities: dict[str, Floats] = {MAIN: chosen.similarity}
    for label, reading in chosen.readings.items():
        similarities[label] = reading
        # A reading may be taken on some images only; its ranking must not be compared with that of all.
        if np.isnan(reading[~np.isnan(chosen.similarity)]).any():
            similarities[_on_pairs_of(label)] = np.where(np.isnan(reading), np.nan, chosen.similarity)
    parts = {label: pair_sums(similarity, chosen.same) for label, similarity in similarities.items()}
    drawn = bootstrap(side_by_side(list(parts.values())), Resampling(len(outcomes.images), resamples, seed))
    count, found = len(outcomes.methods), {}
    for position, (label, sums) in enumerate(parts.items()):
        columns = drawn.columns(np.arange(position * count, (position + 1) * count))
        found[label] = Setting(label, outcomes.methods, columns.distribution("robustness"), sums)
    macro = drawn.columns(np.arange(count)).distribution("robustness_macro")
    return (
        found[MAIN],
        *(replace(found[label], reference=found.get(_on_pairs_of(label), found[MAIN])) for label in chosen.readings),
        Setting(MACRO, outcomes.methods, macro, found[MAIN].sums, reference=found[MAIN]),
    )


def _on_pairs_of(label: str) -> str:
    return f"{MAIN}, on the pairs of {label}"


def _check_readings(outcomes: Outcomes) -> None:
    for label, similarity in outcomes.readings.items():
        if label in (MAIN, MACRO):
            raise ArgumentError(
                f"`outcomes.readings` may not use the label {label!r}: that setting is added here. Rename the reading."
            )
        if similarity.shape != outcomes.similarity.shape:
            raise ArgumentError(
                f"`outcomes.readings[{label!r}]` must be shaped like `similarity` {outcomes.similarity.shape}, got "
                f"{similarity.shape}. Measure all readings on the same images, methods and noises."
            )


def _cause(kept: int, changed: int) -> str:
    if kept == changed == 0:
        return "no pair of maps could be scored"
    what = "kept its class" if kept == 0 else "changed its class"
    return f"no scored pair {what} ({kept} kept, {changed} changed)"
