"""The probe and the bare forwards, ready to be timed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import layer_of, network, pictures
from lightning_camrobust.cache import TensorCache
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.layers import count_runs, resolve_target_layer
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import ProbePlan, make_plan
from lightning_camrobust.probe import probe

SIX_METHODS = ("gradcam", "gradcam_plusplus", "xgradcam", "hirescam", "layercam", "eigencam")
FOUR_NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
SPACE = PixelSpace((0.498,), (0.502,))


@dataclass(frozen=True)
class Subject:
    """A network, images and a target layer."""

    model: nn.Module
    images: Tensor
    layer: nn.Module
    runs: int


def subject(name: str, *, count: int, device: str = "cpu", side: int = 224, target_layer: str | None = None) -> Subject:
    """Prepare a network by name with ``count`` photographs, normalised."""
    model = network(name).to(device)
    images = ((pictures(count, side=side) - SPACE.mean[0]) / SPACE.std[0]).to(device)
    with observe_only(model):
        layer = resolve_target_layer(model, target_layer or layer_of(name), images)
        return Subject(model, images, layer, count_runs(model, layer, images))


def six_method_plan(*, methods: Sequence[str] = SIX_METHODS, severities: Sequence[int] = (3,)) -> ProbePlan:
    """Measure by the six methods under four noises; segments are a grid, as they are cached anyway."""
    return make_plan(methods, FOUR_NOISES, severities=severities, segmenter="grid")


def probe_job(on: Subject, plan: ProbePlan) -> Callable[[], Any]:
    """Make a job that probes the batch, segments and operators kept from the run before."""
    operators = TensorCache(2**28)

    def job() -> Any:
        with observe_only(on.model):
            return probe(
                on.model, on.images, plan=plan, target_layer=on.layer, space=SPACE, operators=operators, runs=on.runs
            )

    return job


def forward_job(on: Subject, plan: ProbePlan) -> Callable[[], Any]:
    """Make a job of the inference forwards that no probe can do without: the clean images and each noisy copy."""

    def job() -> None:
        with torch.inference_mode():
            for _ in range(1 + len(plan.noises)):
                on.model(on.images)

    return job
