"""What the callback tells the user: each text says what is the case and what to do next."""

from lightning_camrobust.budget import TimeBudget


def chosen_layer(names: list[str]) -> str:
    """Tell which layer was chosen, or which layers of a network with branches."""
    if len(names) > 1:
        return (
            f"CAMRobustnessCallback explains the last layers of branches that run side by side, {names}, and takes the "
            f"mean of their maps. Choose others with CAMRobustnessCallback(target_layer={names})."
        )
    return (
        f"CAMRobustnessCallback explains layer {names[0]!r}, the last one whose cells feed the prediction. Name "
        "another with CAMRobustnessCallback(target_layer='...'), or several with target_layer=[...]; an earlier layer "
        "has finer maps."
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


def not_published(logger: str, error: Exception) -> str:
    """Tell that a logger did not take what was written to it."""
    return (
        f"CAMRobustnessCallback: could not write all pictures and texts to {logger}: {type(error).__name__}: {error}. "
        "Training goes on, the scores are logged as ever, and this is said once. Free the disk or repair the logger; "
        "log_images=0 draws no pictures."
    )
