"""``camrobust show``: one image, all methods, one picture."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Newer releases take action="config" instead; older ones do not.
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]

from lightning_camrobust.commands.measuring import make_model
from lightning_camrobust.commands.naming import Named, resolve_named
from lightning_camrobust.commands.options import ModelOptions
from lightning_camrobust.commands.parsing import add_options, take_options
from lightning_camrobust.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_camrobust.study.show import ImageView

SUMMARY = "Draw one image through all CAM methods into one PNG picture."
USAGE = "show --image FILE --network CLASS [--weights FILE] --output FILE.png [options]"
DESCRIPTION = """\
example:

  camrobust show --image cat.jpg --network torchvision.models.resnet18 --weights resnet18.pt --size 224 \\
      --mean '[0.485, 0.456, 0.406]' --std '[0.229, 0.224, 0.225]' --perturbation fog --output cat.png

draws where each method says that the network looks, on the image and on one copy of it in fog, with the overlap
(RBO) of the two maps' rankings, and prints the path of the picture."""


@dataclass
class ShowOptions:
    """What is drawn.

    Args:
        image: File with the picture.
        output: File to write, .png.
        methods: fast for all that take a few passes of the network, all for the slow ones too (Score-CAM, RISE,
            occlusion and Fusion-CAM take hundreds of passes), or CAM methods by name or {class_path: ...}.
        perturbation: Also draw one copy disturbed by this, by name (docs/perturbations.md) or {class_path: ...}.
        severity: Of the perturbation, 1 (weak) to 5 (strong).
        segmenter: How the image is cut into segments, by name or {class_path: ...}.
        seed: Of the noise.
        channels: 1 to read the image in grey, 3 in colour.
        title: Of the picture; by default the image's file name.
    """

    image: str
    output: str
    methods: list[Named] = field(default_factory=lambda: [Named("fast")])
    perturbation: Named | None = None
    severity: int = 3
    segmenter: Named = field(default_factory=lambda: Named("quickshift"))
    seed: int = 0
    channels: int | None = None
    title: str | None = None


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of this command."""
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of these options.")
    add_options(parser, ShowOptions, title="what is drawn")
    add_options(parser, ModelOptions, title="the network")


def run(options: Namespace) -> None:
    """Do it.

    Args:
        options: All that was said to the command.
    """
    show, model = take_options(options, ShowOptions), take_options(options, ModelOptions)
    if Path(show.output).suffix.lower() != ".png":
        raise ArgumentError(f"--output must be a file that ends in .png, got {show.output!r}.")
    from lightning_camrobust.pixels import PixelSpace, make_pixel_space
    from lightning_camrobust.study.show import choose_methods, draw_image_view, view_image
    from lightning_camrobust.study.storage import check_writable

    output = Path(show.output)
    # Before anything is drawn; folders are only made once there is something to put into them.
    check_writable(next(folder for folder in output.absolute().parents if folder.exists()))
    made = make_model(model, name="model")
    image = read_image(show.image, size=model.size, channels=show.channels)
    named = [resolve_named("cams", each, role="`methods`") for each in show.methods]
    methods, left_out = choose_methods(named)
    noise = show.perturbation and resolve_named("perturb", show.perturbation, role="`perturbation`")
    view = view_image(
        made.build(),
        image,
        methods,
        space=make_pixel_space(model.mean, model.std) or PixelSpace((0.0,), (1.0,)),
        target_layer=_layers(made.target_layers),
        perturbation=noise,
        severity=show.severity,
        segmenter=resolve_named("segment", show.segmenter, role="`segmenter`"),
        seed=show.seed,
        skip_failures=named in (["all"], ["fast"]),
        on_method=_tell,
    )
    notes = _notes(view, left_out)
    figure = draw_image_view(view, title=show.title or Path(show.image).name, notes=notes)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)
    print("\n".join([*_lines(view), *notes, str(output)]))


def read_image(file: str, *, size: int | None, channels: int | None = None) -> "Tensor":
    """Read one picture.

    Args:
        file: Its path.
        size: Side of the square that is cut out, in pixels; None keeps the picture as it is.
        channels: 1 for grey; None and 3 for colour.

    Returns:
        ``(c, H, W)`` float32 in [0, 1].

    Raises:
        ArgumentError: If it is no file, or cannot be read as a picture.
    """
    if not Path(file).is_file():
        raise ArgumentError(
            f"--image: there is no file {file!r}. Give the path of one picture, such as a .jpg or .png."
        )
    from lightning_camrobust.study.sources.framing import make_framing
    from lightning_camrobust.study.sources.pictures import read_picture

    return read_picture(Path(file), make_framing(size, channels=channels), name=file)


def _layers(choices: Any) -> Any:
    if len(choices) > 1:
        raise ArgumentError(
            f"camrobust show draws on one target layer, got {len(choices)}: {', '.join(map(str, choices))}. Name one, "
            "or fuse them: --target_layers '[layer3, layer4]'."
        )
    return choices[0]


def _notes(view: "ImageView", left_out: list[str]) -> list[str]:
    notes = [f"Not drawn: {each.method}. {each.failure}" for each in view.views if each.failure]
    if left_out:
        notes.append(f"Left out as slow: {', '.join(left_out)}; --methods all draws them too.")
    return notes


def _lines(view: "ImageView") -> list[str]:
    lines = []
    for each in view.views:
        if not each.panels:
            continue
        line = f"{each.method}: class {each.panels[0].predicted}"
        for panel in each.panels[1:]:
            score = "cannot be ranked" if panel.similarity is None else f"RBO {panel.similarity:.3f}"
            line += f"; {panel.title}: class {panel.predicted} ({'kept' if panel.same else 'changed'}), {score}"
        lines.append(f"{line}; {each.seconds:.1f} s")
    return lines


def _tell(label: str) -> None:
    print(f"drawing {label}", file=sys.stderr, flush=True)
