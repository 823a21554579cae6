"""Callbacks built from YAML by jsonargparse, as LightningCLI does it: every argument, help, mistakes."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import docstring_parser
import lightning.pytorch as pl
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningCLI

from lightning_camrobust import CAMRobustnessCallback, CAMRobustnessEarlyStopping, StableCheckpoint
from lightning_camrobust.cams.gradcam_plusplus import GradCAMPlusPlus
from lightning_camrobust.cams.layercam import LayerCAM
from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.compare.spearman import Spearman
from lightning_camrobust.members import _module, member_names
from lightning_camrobust.perturb.gaussian_noise import GaussianNoise
from lightning_camrobust.perturb.shot_noise import ShotNoise
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.segment.grid import Grid
from lightning_camrobust.segment.slic import Slic
from tests.networks import DigitModule

pytestmark = [
    # As an error this would send jsonargparse on to the next type of a union, and what it writes would be right.
    pytest.mark.filterwarnings(r"ignore:\s*Unable to serialize.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of jsonargparse, about Lightning's own use of it
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),  # of torch, likewise
]
ROOT = Path(__file__).parents[2]
CLASSES = (CAMRobustnessCallback, CAMRobustnessEarlyStopping, StableCheckpoint)


def take_scans(batch):
    """Where the images of a batch are; named in a configuration by its path."""
    return batch["scan"]


def member(path, **init_args):
    """Spell a ready-made member as YAML does."""
    return {"class_path": f"lightning_camrobust.{path}", "init_args": init_args}


# Each argument with values that YAML can hold, and what must have come of it.
SETTINGS = [
    ("methods", ["gradcam", "layercam"], lambda made: list(made._plan.methods) == ["gradcam", "layercam"]),
    (
        "methods",
        ["lightning_camrobust.cams.layercam.LayerCAM"],
        lambda made: made._plan.methods == {"layercam": LayerCAM()},
    ),
    (
        "methods",
        [
            "gradcam",
            member("cams.gradcam_plusplus.GradCAMPlusPlus", epsilon=0.5),
        ],
        lambda made: made._plan.methods["gradcam_plusplus"] == GradCAMPlusPlus(epsilon=0.5),
    ),
    ("perturbations", ["shot_noise"], lambda made: {each.perturbation for each in made._plan.noises} == {ShotNoise()}),
    (
        "perturbations",
        [member("perturb.gaussian_noise.GaussianNoise", levels=[0.1] * 5)],
        lambda made: made._plan.noises[0].perturbation == GaussianNoise(levels=(0.1,) * 5),
    ),
    ("severities", [2, 4], lambda made: [each.severity for each in made._plan.noises[:2]] == [2, 4]),
    ("target_layer", "net.3", lambda made: made.target_layer == "net.3"),
    ("target_layer", ["net.0", "net.3"], lambda made: made.target_layer == ["net.0", "net.3"]),
    ("target_layer", None, lambda made: made.target_layer is None),
    ("layer_fusion", "max", lambda made: made._plan.layer_fusion == "max"),
    ("segmenter", "slic", lambda made: isinstance(made._plan.reading.segmenter, Slic)),
    (
        "segmenter",
        member("segment.grid.Grid", rows=4),
        lambda made: made._plan.reading.segmenter == Grid(rows=4),
    ),
    ("num_samples", 8, lambda made: made.num_samples == 8),
    ("every_n_epochs", 3, lambda made: made.every_n_epochs == 3),
    ("mean", 0.25, lambda made: made._space == PixelSpace((0.25,), (0.5,))),
    ("mean", [0.1, 0.2, 0.3], lambda made: made._space.mean == (0.1, 0.2, 0.3)),
    ("std", 2, lambda made: made._space == PixelSpace((0.5,), (2.0,))),
    ("std", [0.1, 0.2, 0.3], lambda made: made._space.std == (0.1, 0.2, 0.3)),
    ("log_images", 0, lambda made: made.log_images == 0),
    ("arrange_tensorboard", False, lambda made: made is not None),
    ("seed", 7, lambda made: made._plan.seed == 7),
    ("prog_bar", True, lambda made: made.prog_bar is True),
    ("prepare_batch", f"{__name__}.take_scans", lambda made: made.prepare_batch is take_scans),
    ("prepare_batch", None, lambda made: made.prepare_batch is None),
    ("classifier", "net", lambda made: made.classifier == "net"),
    ("classifier", None, lambda made: made.classifier is None),
    ("target", 3, lambda made: made._plan.target == 3),
    ("target", "torch.argmin", lambda made: made._plan.target is torch.argmin),
    ("multilabel", True, lambda made: made._plan.multilabel is True),
    ("dataloader_idx", 1, lambda made: made.dataloader_idx == 1),
    ("max_time_share", 0.05, lambda made: made.max_time_share == 0.05),
    ("chunk_size", 16, lambda made: made.chunk_size == 16),
    ("rbo_p", 0.9, lambda made: made._plan.reading.similarity == RankBiasedOverlap(p=0.9)),
    ("ties", "w", lambda made: made._plan.reading.similarity == RankBiasedOverlap(ties="w")),
    ("similarity", "spearman", lambda made: made._plan.reading.similarity == Spearman()),
    (
        "similarity",
        member("compare.rbo.RankBiasedOverlap", p=0.7),
        lambda made: made._plan.reading.similarity == RankBiasedOverlap(p=0.7),
    ),
    ("align_geometric", True, lambda made: made._plan.align_geometric is True),
    ("severity_column", "cifar", lambda made: made._plan.noises[0].perturbation == GaussianNoise(column="cifar")),
    ("name", "look", lambda made: made.name == "look"),
]


@pytest.fixture(scope="module")
def parser():
    """A parser of a list of callbacks, as `trainer.callbacks` is one; LightningCLI's own takes seconds to make."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[pl.Callback])
    parser.add_argument("--config", action="config")
    return parser


def build(parser, text):
    """Read YAML, build the callbacks; then save, read and build again, as a run from a saved configuration does."""
    config = parser.parse_string(text)
    saved = parser.dump(config, skip_none=False)
    assert "Unable to serialize" not in saved
    again = parser.parse_string(saved)
    assert parser.dump(again, skip_none=False) == saved
    return parser.instantiate_classes(config).callbacks, parser.instantiate_classes(again).callbacks


def settings_of(callback):
    return (
        callback._plan,
        callback._space,
        {key: value for key, value in vars(callback).items() if key[0] != "_"},
    )


def as_yaml(cls, **init_args):
    return yaml.safe_dump({"callbacks": [{"class_path": cls.__name__, "init_args": init_args}]})


def test_every_argument_is_tried():
    arguments = list(inspect.signature(CAMRobustnessCallback).parameters)
    assert list(dict.fromkeys(argument for argument, _, _ in SETTINGS)) == arguments


@pytest.mark.parametrize(
    ("argument", "value", "is_right"), SETTINGS, ids=[f"{name}={value}"[:60] for name, value, _ in SETTINGS]
)
def test_argument_from_yaml(parser, argument, value, is_right):
    # These two are only taken together.
    other = {"mean": "std", "std": "mean"}.get(argument)
    given = {argument: value} | ({other: [0.5] * (len(value) if isinstance(value, list) else 1)} if other else {})
    for (made,) in build(parser, as_yaml(CAMRobustnessCallback, **given)):
        assert is_right(made)


def test_all_arguments_at_once(parser):
    given = {argument: value for argument, value, _ in SETTINGS if value is not None}
    del given["align_geometric"]
    (first,), (second,) = build(parser, as_yaml(CAMRobustnessCallback, **given))
    assert settings_of(first) == settings_of(second)
    assert all(is_right(first) for argument, value, is_right in SETTINGS if given.get(argument) is value is not None
               if argument not in ("mean", "std", "rbo_p", "ties", "severities", "severity_column"))  # fmt: skip


def test_every_member_by_class_path(parser):
    def spell(stage, *, but=()):
        kinds = [type(_module(stage, name).EXAMPLES[0]) for name in member_names(stage) if name not in but]
        return [{"class_path": f"{kind.__module__}.{kind.__qualname__}"} for kind in kinds]

    # These two are made of the user's own functions, and have no default.
    but = ("transformed", "lvat")
    (first,), (second,) = build(
        parser, as_yaml(CAMRobustnessCallback, methods=spell("cams"), perturbations=spell("perturb", but=but))
    )
    assert settings_of(first) == settings_of(second)
    assert list(first._plan.methods) == member_names("cams")
    assert {each.label for each in first._plan.noises} == set(member_names("perturb")) - set(but)


def test_stopping_and_keeping(parser):
    stopping = {"guard": "val_acc", "guard_floor": 0.6, "patience": 5, "start_epoch": 2}
    keeping = {"rule": "pareto", "accuracy": "val_loss", "accuracy_mode": "min"}
    entries = [
        {"class_path": "CAMRobustnessEarlyStopping", "init_args": stopping},
        {"class_path": "lightning_camrobust.StableCheckpoint", "init_args": keeping},
    ]
    text = yaml.safe_dump({"callbacks": entries})
    for stop, keep in build(parser, text):
        assert isinstance(stop, CAMRobustnessEarlyStopping)
        assert isinstance(keep, StableCheckpoint)
        assert (stop.monitor, stop.rule.patience) == ("val_cam_robustness", 5)
        assert keep.rule.rule == "pareto"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_help_says_something_of_every_argument(cls):
    parser = ArgumentParser()
    parser.add_argument("--callbacks", type=list[pl.Callback])
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit, match="0"):
        parser.parse_args([f"--callbacks.help={cls.__name__}"])
    blocks = re.split(r"^  (?=--callbacks\.)", printed.getvalue(), flags=re.MULTILINE)[1:]
    shown = {re.match(r"--callbacks\.(\w+)", block)[1]: "".join(block.split()) for block in blocks}
    documented = {each.arg_name: each.description for each in docstring_parser.parse(cls.__doc__).params}
    for argument in inspect.signature(cls).parameters:
        assert len(documented[argument]) > 8, argument
        assert "".join(documented[argument].split()) in shown[argument], argument
    # A module as a type would list all its subclasses, hundreds of lines.
    assert printed.getvalue().count("\n") < 200


def test_lightning_cli_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # put back afterwards, as the CLI sets it
    monkeypatch.setattr("sys.argv", ["train.py"])

    def start(*arguments):
        return LightningCLI(
            DigitModule, args=list(arguments), run=False, save_config_callback=None, seed_everything_default=0
        )

    flags = [
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.callbacks+=CAMRobustnessCallback",
        "--trainer.callbacks.num_samples=8",
        "--trainer.callbacks.methods=[hirescam, layercam]",
        "--trainer.callbacks+=CAMRobustnessEarlyStopping",
        "--trainer.callbacks.patience=7",
    ]
    cli = start(*flags)
    watch, stop = (
        next(each for each in cli.trainer.callbacks if isinstance(each, kind))
        for kind in (CAMRobustnessCallback, CAMRobustnessEarlyStopping)
    )
    assert (watch.num_samples, list(watch._plan.methods), stop.rule.patience) == (8, ["hirescam", "layercam"], 7)

    # What SaveConfigCallback keeps with each run.
    saved = tmp_path / "config.yaml"
    saved.write_text(cli.parser.dump(cli.config, skip_none=False))
    assert "Unable to serialize" not in saved.read_text()
    again = start("--config", str(saved))
    (same,) = [each for each in again.trainer.callbacks if isinstance(each, CAMRobustnessCallback)]
    assert settings_of(same) == settings_of(watch)


WRONG = {
    "unknown argument": ({"nmae": "cam"}, "Option 'nmae' is not accepted"),
    "perturbation": (
        {"perturbations": ["shott_noise"]},
        "no perturbation is called 'shott_noise'. Nearest: 'shot_noise'",
    ),
    "method": ({"methods": ["gradcamm"]}, "no CAM method is called 'gradcamm'. Nearest: 'gradcam'"),
    "segmenter": ({"segmenter": "gird"}, "no segmenter is called 'gird'. Nearest: 'grid'"),
    "similarity": ({"similarity": "spearmann"}, "no similarity is called 'spearmann'. Nearest: 'spearman'"),
    "path to nothing": ({"methods": ["my_project.cams.Mine"]}, "nothing can be imported as 'my_project.cams.Mine'"),
    "class path to nothing": ({"segmenter": member("segment.grid.Gird")}, "Gird"),
    "argument of a member": ({"segmenter": member("segment.grid.Grid", rosw=3)}, "rosw"),
    "severity": ({"severities": [2, 9]}, "`severity` must be a whole number from 1 (weak) to 5 (strong), got 9"),
    "word for a number": ({"num_samples": "many"}, "Got value: many"),
    "no image": ({"num_samples": 0}, "`num_samples` must be a whole number of at least 1, got 0"),
    "tie rule": ({"ties": "q"}, "Got value: q"),
    "mean alone": ({"mean": 0.5}, "`mean` and `std` belong together"),
}


@pytest.mark.parametrize(("init_args", "said"), WRONG.values(), ids=WRONG)
def test_mistake_in_yaml_is_named(parser, init_args, said):
    with pytest.raises(Exception, match=re.escape(said)):  # noqa: B017, PT011 -- of what kind depends on jsonargparse
        parser.instantiate_classes(parser.parse_string(as_yaml(CAMRobustnessCallback, **init_args)))


def test_misspelt_class_is_named(parser):
    with pytest.raises(Exception, match="CAMRobustnesCallback"):  # noqa: B017, PT011
        parser.parse_string(yaml.safe_dump({"callbacks": [{"class_path": "CAMRobustnesCallback"}]}))


def test_example_sets_everything(parser):
    settings = yaml.safe_load((ROOT / "examples/cli_yaml/config.yaml").read_text())
    watch = settings["trainer"]["callbacks"][0]
    assert set(watch["init_args"]) == set(inspect.signature(CAMRobustnessCallback).parameters)
    made = build(parser, yaml.safe_dump({"callbacks": settings["trainer"]["callbacks"]}))[0]
    assert [type(each) for each in made] == list(CLASSES)
