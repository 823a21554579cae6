"""(c) Ablation-CAM against pytorch-grad-cam's."""

from benchmarks.jobs import Subject, subject
from benchmarks.tables import Table
from benchmarks.timing import in_turns, once
from lightning_camrobust import compute_cams


def measure(*, device: str, rounds: int) -> Table:
    """Time one image; theirs runs the whole network for each channel, so once is enough."""
    table = Table(
        key="ablation",
        title="Ablation-CAM",
        columns=[
            "network",
            "layer",
            "channels",
            "part behind the layer",
            "ours, s an image",
            "theirs, s an image",
            "theirs / ours",
        ],
        text=f"One photograph; ours is the median of {min(rounds, 5)} runs of 8 images, theirs one run of one image.",
    )
    for name, layer, head in (
        ("ResNet-18", None, "affine: closed form"),
        # Lite0's default layer is an activation function that runs often, and the twin cannot tell the runs apart.
        ("EfficientNet-Lite0", "_bn1", "not affine: run for all channels"),
    ):
        on = subject(name, count=8, device=device, target_layer=layer)
        ours = in_turns({"ours": lambda on=on: _ours(on)}, rounds=min(rounds, 5)).median("ours") / len(on.images)
        channels, theirs = _theirs(on)
        shown = next(each for each, module in on.model.named_modules() if module is on.layer)
        table.rows.append([name, f"`{shown}`", channels, head, ours, theirs, theirs / ours])
    reached = all(row[-1] >= 100 for row in table.rows)
    table.goal = f"at least 100: {'reached' if reached else 'missed'}."
    return table


def _ours(on: Subject) -> object:
    return compute_cams(on.model, on.images, "ablationcam", target_layer=on.layer)


def _theirs(on: Subject) -> tuple[int, float]:
    import pytorch_grad_cam

    with pytorch_grad_cam.AblationCAM(on.model, [on.layer]) as cam:
        seconds = once(lambda: cam(on.images[:1], targets=None))
        return int(cam.activations_and_grads.activations[0].shape[1]), seconds
