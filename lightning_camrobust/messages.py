"""What the callbacks tell the user: each text says what is the case and what to do next."""

import math
from collections.abc import Sequence

from lightning_camrobust.budget import TimeBudget

# Below so many cells a map has little to rank: most of what segments score is interpolation between a few numbers.
_COARSE = 16


def chosen_layer(names: list[str], map_size: Sequence[int] | None = None) -> str:
    """Tell which layer was chosen, or which layers of a network with branches, and how fine its maps are.

    Args:
        names: Of the layers.
        map_size: Rows and columns of cells in a map, if known.

    Returns:
        The text, with a word of caution if the maps are very coarse.

    Example:
        >>> chosen_layer(["net.9"], (7, 7)).split(". ")[0].split("; ")[1]
        'maps have 7 x 7 cells'
        >>> "very coarse" in chosen_layer(["net.9"], (2, 2))
        True
    """
    if len(names) > 1:
        return (
            f"CAMRobustnessCallback explains the last layers of branches that run side by side, {names}, and takes the "
            f"mean of their maps{_size(map_size)}. Choose others with CAMRobustnessCallback(target_layer={names})."
            f"{_caution(map_size)}"
        )
    return (
        f"CAMRobustnessCallback explains layer {names[0]!r}, the last one whose cells feed the prediction"
        f"{_size(map_size)}. Name another with CAMRobustnessCallback(target_layer='...'), or several with "
        f"target_layer=[...]; an earlier layer has finer maps.{_caution(map_size)}"
    )


def _size(map_size: Sequence[int] | None) -> str:
    return "" if map_size is None else f"; maps have {' x '.join(map(str, map_size))} cells"


def _caution(map_size: Sequence[int] | None) -> str:
    if map_size is None or math.prod(map_size) >= _COARSE:
        return ""
    return (
        " That is very coarse: with so few cells the ranking of segments says little. Give larger images, or name an "
        "earlier layer."
    )


def fewer_images(found: int, wanted: int) -> str:
    """Tell that the data held fewer images than were asked for."""
    return f"CAMRobustnessCallback: num_samples={wanted}, but only {found} images came; the score rests on these."


def within_budget(budget: TimeBudget, used: int, found: int) -> str:
    """Tell how many images a time budget allows."""
    share = budget.share(seconds=budget.probe_seconds * used / found)
    text = (
        f"CAMRobustnessCallback: max_time_share={budget.max_share:g}: from here on {used} of {found} images are "
        f"probed, about {share:.2%} of the training time."
    )
    if share <= budget.max_share:
        return text
    return (
        f"{text} That is more than was allowed, but fewer images make no readable score: measure fewer perturbations "
        "or severities, or pass every_n_epochs."
    )


def no_images(stage: str, name: str) -> str:
    """Tell that a stage ended without a single image."""
    return (
        f"CAMRobustnessCallback: no images came during `{stage}`, so there is no {name} score. Give the trainer a "
        "non-empty validation loader (test loader for test), and check `limit_val_batches`."
    )


def nothing_scored(key: str) -> str:
    """Tell that not a single pair of maps could be ranked."""
    return (
        f"CAMRobustnessCallback: no pair of maps could be scored, all maps are flat, zero or NaN; `{key}` is not "
        "logged this time. Look at the network's outputs, or name another `target_layer`."
    )


def stale_monitors(callbacks: list[str], every_n_epochs: int) -> str:
    """Tell that a monitored score is renewed less often than it is read."""
    return (
        f"CAMRobustnessCallback: {', '.join(callbacks)} reads a score that is renewed only every {every_n_epochs} "
        "epochs; in between it sees the old value, and patience counts it as no improvement. Use "
        "CAMRobustnessEarlyStopping, which counts fresh values only, or every_n_epochs=1 with a smaller num_samples."
    )


def nothing_kept(accuracy: str, stability: str, refused: float | None, bound: str) -> str:
    """Tell why a training has ended without a single checkpoint; `refused` is the last accuracy beyond its bound."""
    if refused is None:
        why = f"no validation brought a new {accuracy!r} and a new {stability!r} that are both finite"
        return f"StableCheckpoint kept no checkpoint: {why}. Look at limit_val_batches, and at what is logged."
    why = f"{accuracy!r} never met {bound}; it was {refused:.4g} in the last validation"
    return f"StableCheckpoint kept no checkpoint: {why}. Train longer, or ask for less."


def files_gone(paths: Sequence[str]) -> str:
    """Tell that checkpoints which a resumed training knows of are no longer there."""
    return (
        f"StableCheckpoint: {', '.join(paths)} no longer exist and count no more. They were kept when the checkpoint "
        "was written that training goes on from, and removed since, by training that went further, or by hand."
    )


def two_scales(accuracy: str, stability: str, of_accuracy: float, of_stability: float) -> str:
    """Tell that the larger of two numbers drowns the other one in a weighted sum."""
    return (
        f"StableCheckpoint: {accuracy!r} is {of_accuracy:.4g} and {stability!r} is {of_stability:.4g}; in a weighted "
        "sum of such different scales the larger one decides alone. Log both from 0 to 1, or pass rule='pareto', "
        "which adds nothing up."
    )


def not_published(logger: str, error: Exception) -> str:
    """Tell that a logger did not take what was written to it."""
    return (
        f"CAMRobustnessCallback: could not write all pictures and texts to {logger}: {type(error).__name__}: {error}. "
        "Training goes on, the scores are logged as ever, and this is said once. Free the disk or repair the logger; "
        "log_images=0 draws no pictures."
    )
