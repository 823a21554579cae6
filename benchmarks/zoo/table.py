"""The sweep's result as a page."""

from typing import Any

_HEAD = """# The zoo

Does `CAMRobustnessCallback()` work, with no argument, on networks that nobody here chose? Each network below got random
weights and ran through `trainer.validate` on two of scikit-image's photographs at its own input size, on a CPU: four
noises at three severities, Grad-CAM on the layer that was found. The score of a random network means nothing; that
there is one, and on which layer, is what this page is about.

Zeros that a network begins with were undone, since behind them everything is the same whatever the image shows: linear
layers and tables of relative positions were drawn (torchvision's transformers have a head of zeros), gains of
normalisations set to one. In a random transformer that reads its class token, it is a coin toss whether all cells speak
against the class, so that Grad-CAM's ReLU leaves nothing of any map; then another seed was tried. The seed is in the
table.

Made by `python -m benchmarks.zoo --results zoo.jsonl --table docs/zoo.md`, which may be stopped and started again.
"""


def as_markdown(rows: list[dict[str, Any]]) -> str:
    """Write counts, then one table a library.

    Args:
        rows: Results, in any order.

    Returns:
        The page.
    """
    parts = [_HEAD]
    for library, of_what in (("torchvision", "classifiers"), ("timm", "families, each by its smallest member,")):
        own = sorted((row for row in rows if row["library"] == library), key=lambda row: row["key"])
        finite = sum(row["score"] is not None for row in own)
        parts.append(f"## {library}\n\n{finite} of {len(own)} {of_what} get a finite score.\n")
        lines = ["| network | parameters | layer | seed | score | seconds |", "|---|---|---|---|---|---|"]
        parts.append("\n".join([*lines, *(_line(row) for row in own)]) + "\n")
    return "\n".join(parts)


def _line(row: dict[str, Any]) -> str:
    shown = f"{row['score']:.3f}" if row["score"] is not None else f"**none**: {row['error'].splitlines()[0][:160]}"
    size = f"{row['parameters'] / 1e6:.1f} M" if "parameters" in row else ""
    layer = f"`{row['layer']}`" if row.get("layer") else ""
    name = row["network"] if row["network"] == row["family"] else f"{row['family']}: {row['network']}"
    return f"| {name} | {size} | {layer} | {row.get('seed', '')} | {shown} | {row.get('seconds', '')} |"
