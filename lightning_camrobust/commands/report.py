"""``camrobust report``: the analysis and the page again, from finished studies."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_camrobust.commands.analysing import add_analysis, check_studies, report_on

SUMMARY = "Analyse finished studies again and write one page about them."
USAGE = "report FOLDER [FOLDER ...] --output FOLDER [options]"
DESCRIPTION = """\
example:

  camrobust report results_resnet results_vit --output both --title "ResNet and ViT" --resamples 10000

reads what two studies measured, writes both/report.html about them, and prints the verdict. No network and no
images are needed. Studies of the same images and methods are compared with each other as well."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the flags of this command."""
    parser.add_argument("folders", nargs="+", type=str, help="Folders of finished studies.")
    parser.add_argument("--output", type=str, required=True, help="Folder of the page.")
    add_analysis(parser)
    parser.add_argument("--seed", type=int, default=0, help="Of the bootstrap.")


def run(options: Namespace) -> None:
    """Do it.

    Args:
        options: All that was said to the command.
    """
    report_on(check_studies(options.folders), options, output=Path(options.output))
