"""A page of markdown that explains the numbers where they are looked at."""

from collections.abc import Mapping
from typing import Any

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.gallery import measure_name
from lightning_camrobust.members import member_family
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan

# A paragraph is one line: TensorBoard breaks lines where the text does.
_TEXT = """\
## What `{name}` measures

Does the classifier still look at the same place when an image gets noisy? Each run disturbs the same \
held-out images, explains clean and noisy copies with class activation maps, {comparison}.

| number | what it says | good |
|---|---|---|
| `{stage}_{name}_consistency` (C) | where the prediction stayed: how far the map stayed | near 1 |
| `{stage}_{name}_responsiveness` (R) | where the prediction changed: how far the map moved | near 1 |
| `{stage}_{name}_robustness` (RM) | C x R: stays when it should, moves when it should | near 1 |
| `{stage}_{name}_flip_rate` | share of noisy copies with another prediction; C and R rest on the two shares | low |

Read them together. With a flip rate of 0 there is no evidence for R, which then counts as 1, so RM equals C. \
{caution} `{stage}_{name}_degenerate_rate` counts flat, empty or broken maps, which are never scored.

## How it was measured here

| setting | value |
|---|---|
{settings}

The documentation of lightning-camrobust has more: definitions and traps on its page "Reading the numbers", what is \
promised about training on "Guarantees", and what each logger gets on "Loggers", a how-to page.
"""


def write_card(settings: Mapping[str, str], plan: ProbePlan, *, name: str, stage: str = "val") -> str:
    """Write the page.

    Args:
        settings: What was set, in the reader's words.
        plan: What was measured.
        name: Of the callback, as in its keys.
        stage: ``"val"`` or ``"test"``.

    Returns:
        Markdown.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> card = write_card({"images": "32"}, make_plan(), name="cam")
        >>> "| images | 32 |" in card, "`val_cam_flip_rate`" in card
        (True, True)
    """
    # A bar ends a table's cell, also within backticks, and a line break its row.
    rows = [f"| {key} | {' '.join(value.replace('|', '/').split())} |" for key, value in settings.items()]
    return _TEXT.format(
        name=name, stage=stage, comparison=_comparison(plan), caution=_caution(plan), settings="\n".join(rows)
    )


def describe_settings(plan: ProbePlan, report: dict[str, Any], *, space: PixelSpace | None) -> dict[str, str]:
    """List what was set, and what was found out.

    Args:
        plan: What was measured.
        report: What came of it.
        space: How inputs relate to pixels.

    Returns:
        Texts by name.

    Example:
        >>> from lightning_camrobust.plan import make_plan
        >>> plan = make_plan(severities=(1, 3))
        >>> found = describe_settings(plan, {"num_images": 32, "target_layer": "net.3"}, space=None)
        >>> found["perturbations"], found["severities"], found["target layer"]
        ('gaussian_noise', '1, 3', 'net.3')
    """
    first = next(iter(plan.methods))
    target = "predicted class" if plan.target is None else getattr(plan.target, "__name__", str(plan.target))
    return {
        "images": str(report["num_images"]),
        "CAM methods": ", ".join(plan.methods) + (f" (headline: {first})" if len(plan.methods) > 1 else ""),
        "target layer": str(report["target_layer"]),
        "perturbations": ", ".join(dict.fromkeys(noise.label for noise in plan.noises)),
        "severities": ", ".join(map(str, dict.fromkeys(noise.severity for noise in plan.noises))),
        "segments": member_family(plan.reading.segmenter),
        "compared by": f"{measure_name(plan)}, {plan.reading.similarity!r}",
        "explained": f"{target}{', each class decided for itself' if plan.multilabel else ''}",
        "seed of the noise": str(plan.seed),
        "pixel space": "raw pixels" if space is None else f"mean {_short(space.mean)}, std {_short(space.std)}",
    }


def _comparison(plan: ProbePlan) -> str:
    similarity, measure = plan.reading.similarity, measure_name(plan)
    if getattr(similarity, "of_maps", False):
        return f"and compares the two maps themselves ({measure}, 1 = most alike)"
    if getattr(similarity, "of_ranks", False):
        return f"ranks the segments of each image by its map, and compares the two rankings ({measure}, 1 = same order)"
    return f"scores the segments of each image by its map, and compares the two rows of scores ({measure})"


def _caution(plan: ProbePlan) -> str:
    if isinstance(plan.reading.similarity, RankBiasedOverlap):
        return (
            "Maps that have nothing to do with each other still reach an RM of about 0.05 with the default settings, "
            "never more than 0.25."
        )
    return (
        f"What maps reach that have nothing to do with each other depends on the similarity, {measure_name(plan)} "
        "here. Where one can be negative, as correlations can, C and RM may fall below 0 and R may rise above 1."
    )


def _short(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
