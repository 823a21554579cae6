"""(b) The same job by other libraries, in the code that a user would write today."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.jobs import FOUR_NOISES, SIX_METHODS, SPACE, Subject, probe_job, six_method_plan, subject
from benchmarks.tables import Table, spread
from benchmarks.timing import in_turns
from lightning_camrobust import segment_images

TWINS = {
    "gradcam": "GradCAM",
    "gradcam_plusplus": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "eigencam": "EigenCAM",
}
TORCHCAM = {"gradcam": "GradCAM", "gradcam_plusplus": "GradCAMpp", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}


def measure(*, device: str, rounds: int) -> Table:
    """Time both rivals on two networks."""
    count = 8
    table = Table(
        key="peers",
        title="The same job by other libraries",
        columns=["network", "methods", "by", "ours, s", "theirs, s", "theirs / ours"],
        text=f"{count} photographs, four noisy copies. Theirs: noise from `torch`, maps of the whole batch from the "
        "library, means of the upsampled maps over the segments, rank-biased overlap in a loop. Segments are ready "
        f"for both. Gradients are only asked for by methods that need them. Median (quartiles) of {rounds} rounds.",
    )
    # Lite0's default layer is an activation function that runs often, and the rivals take its first run.
    for name, layer in (("ResNet-18", None), ("EfficientNet-Lite0", "_bn1")):
        on = subject(name, count=count, device=device, target_layer=layer)
        labels = segment_images((on.images * SPACE.std[0] + SPACE.mean[0]).clamp(0, 1), "grid").cpu().numpy()
        for methods, by, explain in (
            (SIX_METHODS, "pytorch-grad-cam", _pytorch_grad_cam(on)),
            (tuple(TORCHCAM), "torchcam", _torchcam(on)),
        ):
            jobs = {
                "ours": probe_job(on, six_method_plan(methods=methods)),
                "theirs": _pipeline(on, explain, methods, labels),
            }
            jobs["ours"]()
            times = in_turns(jobs, rounds=rounds, warmups=0)
            row = [name, len(methods), by, times.median("ours"), times.median("theirs")]
            table.rows.append([*row, times.ratio("theirs", "ours")])
    reached = all(row[-1][0] >= 10 for row in table.rows if row[2] == "pytorch-grad-cam")
    table.goal = f"at least 10 against pytorch-grad-cam: {'reached' if reached else 'missed'}."
    for row in table.rows:
        row[-1] = spread(row[-1])
    return table


Explain = Callable[[str, Tensor], tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def _pipeline(
    on: Subject, explain: Explain, methods: tuple[str, ...], labels: np.ndarray[Any, Any]
) -> Callable[[], Any]:
    def job() -> list[float]:
        found = []
        clean = {method: explain(method, on.images) for method in methods}
        for _ in FOUR_NOISES:
            noisy_images = on.images + 0.2 * torch.randn_like(on.images)
            for method in methods:
                maps, classes = clean[method]
                noisy_maps, noisy_classes = explain(method, noisy_images)
                for index, regions in enumerate(labels):
                    before, after = _means(maps[index], regions), _means(noisy_maps[index], regions)
                    same = classes[index] == noisy_classes[index]
                    found.append(_overlap(before, after) if same else 1 - _overlap(before, after))
        return found

    return job


def _pytorch_grad_cam(on: Subject) -> Explain:
    import pytorch_grad_cam

    def explain(method: str, images: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        with getattr(pytorch_grad_cam, TWINS[method])(on.model, [on.layer]) as cam:
            maps = cam(images, targets=None)
            return maps, cam.outputs.argmax(dim=1).cpu().numpy()

    return explain


def _torchcam(on: Subject) -> Explain:
    from torchcam import methods as torchcam_methods

    def explain(method: str, images: Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        with getattr(torchcam_methods, TORCHCAM[method])(on.model, on.layer) as extractor:
            logits = on.model(images)
            classes = logits.argmax(dim=1)
            maps = extractor(classes.tolist(), logits)[0]
            large = torch.nn.functional.interpolate(maps[:, None], images.shape[2:], mode="bilinear")[:, 0]
            return large.detach().cpu().numpy(), classes.cpu().numpy()

    return explain


def _means(heat: np.ndarray[Any, Any], regions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.bincount(regions.ravel(), heat.ravel()) / np.bincount(regions.ravel())


def _overlap(before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], p: float = 0.2) -> float:
    first, second = np.argsort(-before), np.argsort(-after)
    seen_first, seen_second, total = set(), set(), 0.0
    for depth, (left, right) in enumerate(zip(first, second, strict=True), start=1):
        seen_first.add(left)
        seen_second.add(right)
        total += p ** (depth - 1) * len(seen_first & seen_second) / depth
    return (1 - p) * total + p ** len(first)
