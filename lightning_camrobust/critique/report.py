"""How much a verdict on CAM methods owes to the baseline, the number of steps, and the seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lightning_camrobust.critique.curves import Classify, RemovalSettings, removal_curves
from lightning_camrobust.critique.neutrality import measure_neutrality
from lightning_camrobust.critique.ranking import RankingTable
from lightning_camrobust.critique.replacing import replace_pixels
from lightning_camrobust.critique.scores import BETTER, removal_scores
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.members import label_members, resolve_member
from lightning_camrobust.randomness import image_keys
from lightning_camrobust.types import Baseline

# One of each kind: colours, a colour of the image's own, a blur, noise, and an imputation.
DEFAULT_BASELINES = ("black", "white", "grey", "image_mean", "blur", "uniform_noise", "noisy_linear")


@dataclass(frozen=True)
class BaselineFacts:
    """What is known of one baseline itself, as means over the images.

    Attributes:
        name: Of the baseline.
        colour: Its mean colour in pixel units [0, 1], one value a channel, when the whole picture is replaced.
        most_likely: Largest probability that the network gives any class for the baseline's picture.
        own_class: Probability of the explained class.
        divergence: Divergence of the probabilities from the uniform distribution, in nats.
        artefact: Mean over methods and steps of what the removal itself does to the score.
    """

    name: str
    colour: tuple[float, ...]
    most_likely: float
    own_class: float
    divergence: float
    artefact: float


@dataclass(frozen=True)
class BaselineReport:
    """The verdict on CAM methods under several ways of measuring; ``print`` shows it as a table.

    Attributes:
        by_baseline: Scores under each baseline, with the first number of steps and the first seed.
        by_steps: Scores with each number of steps, under the first baseline; None if only one was asked for.
        by_seed: Scores with each seed, under the first baseline; None if only one was asked for.
        facts: Each baseline by itself.
    """

    by_baseline: RankingTable
    by_steps: RankingTable | None
    by_seed: RankingTable | None
    facts: tuple[BaselineFacts, ...]

    @property
    def stable(self) -> bool:
        """Whether every metric ranks the methods alike (Kendall tau of 0.8 or more) whatever is changed."""
        return all(table.stable for table in (self.by_baseline, self.by_steps, self.by_seed) if table is not None)

    def __str__(self) -> str:
        lines = ["baseline: mean colour; largest p, p of the class, KL to uniform; artefact"]
        for each in self.facts:
            colour = " ".join(f"{value:.3f}" for value in each.colour)
            answers = f"{each.most_likely:.3f} {each.own_class:.3f} {each.divergence:.3f}"
            lines.append(f"{each.name}: {colour}; {answers}; {each.artefact:.4f}")
        tables = (("baselines", self.by_baseline), ("steps", self.by_steps), ("seeds", self.by_seed))
        blocks = [f"-- by {name} --\n{table}" for name, table in tables if table is not None]
        verdict = "ranking stable" if self.stable else "ranking unstable"
        return "\n\n".join(["\n".join(lines), *blocks, f"Overall: {verdict}"])


def report_baselines(
    classify: Classify,
    pixels: Tensor,
    maps: Mapping[str, Tensor],
    classes: Tensor,
    *,
    baselines: Sequence[str | Baseline] = DEFAULT_BASELINES,
    step_counts: Sequence[int] = (20,),
    seeds: Sequence[int] = (0,),
    chunk_size: int = 64,
) -> BaselineReport:
    """Measure how methods rank under each baseline, number of steps and seed.

    Args:
        classify: Takes pixels ``(n, c, H, W)`` in [0, 1] to probabilities ``(n, k)``.
        pixels: ``(b, c, H, W)`` in [0, 1].
        maps: The maps ``(b, h, w)`` of each method, by its name; two methods or more. Controls from
            :mod:`~lightning_camrobust.critique.controls` may stand among them. An image of which one method's map is
            not finite is left out for all methods.
        classes: The explained class of each image, ``(b,)`` integers.
        baselines: Names or instances, two or more.
        step_counts: Numbers of steps; the first one is used for all baselines.
        seeds: Seeds; they matter only if the first baseline draws random numbers.
        chunk_size: Images in one forward pass.

    Returns:
        The report.

    Raises:
        ArgumentError: If there are too few methods or baselines, or an argument does not fit.

    Source:
        After Brunke, Agrawal and George 2020 (arXiv 2101.10977) and Brocki and Chung 2022 (arXiv 2203.02928); the limit
        of 0.8 is ours.

    Example:
        >>> bright = lambda pixels: torch.stack([1 - pixels.mean(dim=(1, 2, 3)), pixels.mean(dim=(1, 2, 3))], dim=1)
        >>> image = torch.rand(1, 1, 4, 4)
        >>> maps = {"light": image[:, 0], "dark": 1 - image[:, 0]}
        >>> how = {"baselines": ("black", "white"), "step_counts": (4,)}
        >>> report_baselines(bright, image, maps, torch.tensor([1]), **how).by_baseline.variants
        ('black', 'white')
    """
    if len(maps) < 2 or len(baselines) < 2 or not step_counts or not seeds:
        raise ArgumentError(
            "report_baselines: expected two methods in `maps`, two `baselines`, one of `step_counts` and one of "
            f"`seeds`, or more; got {len(maps)}, {len(baselines)}, {len(step_counts)} and {len(seeds)}."
        )
    members: list[Baseline] = [resolve_member("baseline", each) for each in baselines]
    for each in members:
        _check_hashable(each)
    first = RemovalSettings(members[0], step_counts[0], seeds[0], chunk_size)
    by_baseline = {
        name: replace(first, baseline=each) for name, each in zip(label_members(members), members, strict=True)
    }
    study = _Study(classify, pixels, maps, classes)
    return BaselineReport(
        by_baseline=study.table(by_baseline),
        by_steps=study.optional_table({str(count): replace(first, steps=count) for count in step_counts}),
        by_seed=study.optional_table({str(seed): replace(first, seed=seed) for seed in seeds}),
        facts=tuple(study.facts(name, settings) for name, settings in by_baseline.items()),
    )


def _check_hashable(baseline: Baseline) -> None:
    try:
        hash(baseline)
    except TypeError:
        raise ArgumentError(
            f"report_baselines: each of `baselines` must be hashable, as what was measured is kept by it; "
            f"{type(baseline).__name__} is not. Declare it with @dataclass(frozen=True)."
        ) from None


@dataclass(frozen=True)
class _Study:
    """The maps under judgement; what was measured once is kept."""

    classify: Classify
    pixels: Tensor
    maps: Mapping[str, Tensor]
    classes: Tensor
    _measured: dict[RemovalSettings, dict[str, Tensor]] = field(default_factory=dict)

    def scores(self, settings: RemovalSettings) -> dict[str, Tensor]:
        """Mean over images of each score, ``(method,)`` float64."""
        if settings not in self._measured:
            rows = [
                removal_scores(removal_curves(self.classify, self.pixels, maps, self.classes, settings=settings))
                for maps in self.maps.values()
            ]
            # An image of which one map is not finite has no score there; without it for all, all are judged alike.
            together = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
            self._measured[settings] = {
                name: each[:, ~each.isnan().any(dim=0)].mean(dim=1).cpu() for name, each in together.items()
            }
        return self._measured[settings]

    def table(self, grid: Mapping[str, RemovalSettings]) -> RankingTable:
        scores = [torch.stack([self.scores(each)[metric] for each in grid.values()], dim=1) for metric in BETTER]
        return RankingTable(tuple(BETTER), tuple(self.maps), tuple(grid), torch.stack(scores))

    def optional_table(self, grid: Mapping[str, RemovalSettings]) -> RankingTable | None:
        return self.table(grid) if len(grid) > 1 else None

    def facts(self, name: str, settings: RemovalSettings) -> BaselineFacts:
        baseline: Baseline = resolve_member("baseline", settings.baseline)
        everything = torch.ones_like(self.pixels[:, :1], dtype=torch.bool)
        keys = image_keys(self.pixels)
        pictures = replace_pixels(self.pixels, everything, baseline, keys=keys, seed=settings.seed)
        neutrality = measure_neutrality(self.classify, pictures, self.classes, chunk_size=settings.chunk_size)
        return BaselineFacts(
            name=name,
            colour=tuple(pictures.double().mean(dim=(0, 2, 3)).tolist()),
            most_likely=float(neutrality.most_likely.mean()),
            own_class=float(neutrality.own_class.mean()),
            divergence=float(neutrality.divergence.mean()),
            artefact=float(self.scores(settings)["artefact"].nanmean()),
        )
