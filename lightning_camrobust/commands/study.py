"""``camrobust study``: measure, analyse, and write the report."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_camrobust.commands.analysing import add_analysis, report_on
from lightning_camrobust.commands.measuring import add_measuring, measure

SUMMARY = "Measure a grid of models, CAM methods and perturbations, and write the report."
USAGE = "study --config study.yaml | --network CLASS --data IMAGES --output FOLDER [options]"
EXAMPLE = """\
models:
  small:
    network: {class_path: torchvision.models.resnet18, init_args: {num_classes: 10}}
    weights: small.pt
    size: 224
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
    target_layers: [layer4]
data: photos
image_options: {labels: '^([0-9]+)_'}
methods:
  - gradcam
  - {class_path: rise, init_args: {masks: 200}}
perturbations: [gaussian_noise, gaussian_blur, jpeg]
severities: [1, 3, 5]
output: results
"""
DESCRIPTION = f"""\
example: save this as study.yaml, and run  camrobust study --config study.yaml

{"".join(f"  {line}" for line in EXAMPLE.splitlines(keepends=True))}
It measures every method under every perturbation and severity on every image, writes results/report.html,
tables and figures, and prints the verdict. Run it again after an interruption, and it goes on from there.
Flags stand above the file: camrobust study --config study.yaml --severities 1 2 3 4 5
One network needs no file: --network torchvision.models.resnet18 --weights small.pt --data photos ...
--print_config shows all settings as YAML, ready to be saved."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of this command."""
    add_measuring(parser)
    add_analysis(parser)


def run(options: Namespace) -> None:
    """Do it.

    Args:
        options: All that was said to the command.
    """
    folder = measure(options)
    if folder is not None:
        report_on([folder], options, output=Path(folder))
