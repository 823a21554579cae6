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
        text=f"One photograph; ours is the median of {rounds} runs of 8 images, theirs one run of one image.",
    )
    for name, layer, head in (
        ("ResNet-18", None, "affine: closed form"),
        ("EfficientNet-Lite0", None, "affine: closed form"),
        ("EfficientNet-Lite0", "_bn1", "not affine: replayed"),
        ("DenseNet-121", "features.norm5", "not affine: run again"),
    ):
        on = subject(name, count=8, device=device)
        chosen = on.layer if layer is None else dict(on.model.named_modules())[layer]
        on = Subject(on.model, on.images, chosen, on.runs)
        ours = in_turns({"ours": lambda on=on: _ours(on)}, rounds=rounds).median("ours") / len(on.images)
        channels, theirs = _theirs(on)
        shown = next(each for each, module in on.model.named_modules() if module is chosen)
        table.rows.append([name, f"`{shown}`", channels, head, ours, theirs, theirs / ours])
    reached = all(row[-1] >= 100 for row in table.rows[:2])
    table.goal = f"at least 100 on the default layers of the first two: {'reached' if reached else 'missed'}."
    return table


def _ours(on: Subject) -> object:
    return compute_cams(on.model, on.images, "ablationcam", target_layer=on.layer)


def _theirs(on: Subject) -> tuple[int, float]:
    import pytorch_grad_cam

    with pytorch_grad_cam.AblationCAM(on.model, [on.layer]) as cam:
        seconds = once(lambda: cam(on.images[:1], targets=None))
        return int(cam.activations_and_grads.activations[0].shape[1]), seconds
