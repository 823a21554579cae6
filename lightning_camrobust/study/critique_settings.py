"""What the critique of scores that remove pixels varies, and whose maps it judges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_camrobust.critique.report import DEFAULT_BASELINES
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import resolve_member


@dataclass(frozen=True)
class CritiqueSettings:
    """What the critique varies.

    Attributes:
        num_images: Evenly spaced over the data; 0 leaves the critique out, as it runs the network about
            ``3 * methods * baselines * steps`` times an image.
        baselines: What takes the place of removed pixels, names or instances; two or more.
        step_counts: Numbers of removal steps; the first is used throughout.
        seeds: Of a baseline of random pixels, and of RISE's masks.
        rise: Whether RISE is drawn as well, with other grids, numbers of masks and shares of shown cells.
        masks: RISE's own number of masks.

    Raises:
        ArgumentError: If there are too few baselines, step counts or seeds.
        UnknownNameError: If there is no such baseline.

    Example:
        >>> CritiqueSettings(baselines=("black", "white"), rise=False).step_counts
        (10, 20)
    """

    num_images: int = 0
    baselines: Sequence[str] = DEFAULT_BASELINES
    step_counts: Sequence[int] = (10, 20)
    seeds: Sequence[int] = (0, 1, 2)
    rise: bool = True
    masks: int = 200

    def __post_init__(self) -> None:
        if self.num_images < 0 or self.masks < 2:
            raise ArgumentError(
                "Critique: `num_images` must be 0 or more and `masks` 2 or more; got "
                f"{self.num_images!r} and {self.masks!r}."
            )
        if len(self.baselines) < 2 or not self.step_counts or not self.seeds:
            raise ArgumentError(
                "Critique: two `baselines`, one of `step_counts` and one of `seeds`, or more, are needed; got "
                f"{len(self.baselines)}, {len(self.step_counts)} and {len(self.seeds)}."
            )
        for each in self.baselines:
            resolve_member("baseline", each)


@dataclass(frozen=True)
class Subject:
    """Whose maps are judged.

    Attributes:
        classify: From pixels ``(n, c, H, W)`` in [0, 1] to probabilities ``(n, k)``.
        pixels: The images.
        classes: Predicted on them, ``(b,)``.
        maps: By method, ``(b, h, w)``.
    """

    classify: Callable[[Tensor], Tensor]
    pixels: Tensor
    classes: Tensor
    maps: dict[str, Tensor]
