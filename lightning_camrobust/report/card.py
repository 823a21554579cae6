"""A page of markdown that explains the numbers where they are looked at."""

from collections.abc import Mapping
from typing import Any

from lightning_camrobust.gallery import measure_name
from lightning_camrobust.members import member_family
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan

# A paragraph is one line: TensorBoard breaks lines where the text does.
_TEXT = """\
## What `{name}` measures

Does the classifier still look at the same place when an image gets noisy? Each validation run disturbs the same \
held-out images, explains clean and noisy copies with class activation maps, ranks the segments of each image by its \
map, and compares the two rankings ({measure}, 1 = same order).

| number | what it says | good |
|---|---|---|
| `val_{name}_consistency` (C) | where the prediction stayed: how far the map stayed | near 1 |
| `val_{name}_responsiveness` (R) | where the prediction changed: how far the map moved | near 1 |
| `val_{name}_robustness` (RM) | C x R: stays when it should, moves when it should | near 1 |
| `val_{name}_flip_rate` | share of noisy copies with another prediction; C and R rest on the two shares | low |

Read them together. With a flip rate of 0 there is no evidence for R, which then counts as 1, so RM equals C. \
Maps that have nothing to do with each other still reach an RM of about 0.05 with the default settings, \
never more than 0.25. `val_{name}_degenerate_rate` counts flat or empty maps, which are never ranked.

## How it was measured here

| setting | value |
|---|---|
{settings}

Definitions and traps: docs/reading-the-numbers.md. What is promised about training: docs/guarantees.md. What each \
logger gets: docs/how-to/loggers.md.
"""


def write_card(settings: Mapping[str, str], *, name: str, measure: str) -> str:
    """Write the page.

    Args:
        settings: What was set, in the reader's words.
        name: Of the callback, as in its keys.
        measure: What maps were compared by.

    Returns:
        Markdown.

    Example:
        >>> card = write_card({"images": "32"}, name="cam", measure="RBO")
        >>> "| images | 32 |" in card, "`val_cam_flip_rate`" in card
        (True, True)
    """
    # A bar ends a table's cell, also within backticks.
    rows = [f"| {key} | {value.replace('|', '/')} |" for key, value in settings.items()]
    return _TEXT.format(name=name, measure=measure, settings="\n".join(rows))


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


def _short(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
