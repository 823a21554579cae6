"""RISE drawn with other settings: how far its maps depend on luck and on choices nobody reports."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.cams.rise import RISE
from lightning_camrobust.compare.spearman import spearman_correlation
from lightning_camrobust.compare.topk import TopKIoU
from lightning_camrobust.types import CAMMethod


@dataclass(frozen=True)
class RegionMaps:
    """Maps of one region method under several settings.

    Attributes:
        maps: By setting, ``(b, h, w)``; the first is the method's own.
    """

    maps: dict[str, Tensor]


def region_maps(
    draw: Callable[[Mapping[str, CAMMethod]], dict[str, Tensor]],
    *,
    masks: int,
    seeds: Sequence[int],
    baselines: Sequence[str],
) -> RegionMaps:
    """Draw RISE with its own settings, and with one of them changed.

    Args:
        draw: From methods by label to their maps by label.
        masks: Number of masks N.
        seeds: Of the masks.
        baselines: What is shown in place of hidden pixels, the first two of which are tried.

    Returns:
        The maps: other seeds, half and twice the masks, a finer and a coarser grid, fewer and more shown cells, other
        baselines.
    """
    own = RISE(masks=masks, seed=seeds[0])
    variants = {"own": own}
    variants |= {f"seed {seed}": replace(own, seed=seed) for seed in seeds[1:]}
    variants |= {f"N {count}": replace(own, masks=count) for count in (masks // 2, 2 * masks)}
    variants |= {f"grid {cells}": replace(own, cells=cells) for cells in (5, 10)}
    variants |= {f"p {keep}": replace(own, keep=keep) for keep in (0.3, 0.7)}
    variants |= {f"baseline {name}": replace(own, baseline=name) for name in baselines[:2]}
    return RegionMaps(draw(variants))


def agreement_rows(regions: RegionMaps) -> dict[str, Any]:
    """Compare each setting's maps with those of the method's own settings.

    Args:
        regions: From :func:`region_maps`.

    Returns:
        A table: mean Spearman correlation of the cells, and mean IoU of the top fifth of the cells.

    Example:
        >>> first = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
        >>> agreement_rows(RegionMaps({"own": first, "turned": -first}))["rows"]
        [['turned', -1.0, 0.0]]
    """
    own, *others = regions.maps.items()
    rows = []
    for name, maps in others:
        cells = [each.flatten(1).double() for each in (own[1], maps)]
        present = torch.ones_like(cells[0], dtype=torch.bool)
        # The correlation itself, in [-1, 1]; the similarity of that name is moved to [0, 1].
        values = (spearman_correlation(*cells), TopKIoU(share=0.2)(*cells, present=present))
        means = [float(value.nanmean()) for value in values]
        rows.append([name, *(None if math.isnan(mean) else mean for mean in means)])
    return {
        "title": "Agreement of RISE's maps with those of its own settings",
        "columns": ["changed", "Spearman", "IoU of the top 20%"],
        "rows": rows,
    }
