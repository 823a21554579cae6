"""YAML and JSON blocks parse; what configures a trainer, an object by Hydra or a study is read by its own reader."""

import json
import sys

import pytest
import yaml

from tests.docs.blocks import pages, read_blocks


def _blocks(language):
    return [block for page in pages() for block in read_blocks(page) if block.language == language]


def test_json_blocks_parse():
    for block in _blocks("json"):
        json.loads(block.code)


@pytest.mark.parametrize("block", _blocks("yaml"), ids=str)
def test_yaml_blocks_are_accepted_by_what_reads_them(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Modules of the reader's own lie where he stands; the setup of a block writes them there.
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    exec(compile("\n" * (block.setup_line - 1) + block.setup, block.page, "exec"), {})
    check_yaml(block.code)
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def check_yaml(text):
    """Let the reader of a configuration read it: Hydra, LightningCLI, or the command for studies."""
    content = yaml.safe_load(text)
    if "_target_" in text:
        _build_by_hydra(content)
    elif "trainer" in content:
        _build_by_lightning(content)
    elif {"models", "network", "methods"} & set(content):
        _check_study({"data": "photos", "output": "results", **content})
    else:
        raise ValueError(f"nothing here reads a configuration with {list(content)}")


def _build_by_hydra(content):
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    # It goes into whatever has no `_target_` of its own, and builds all it finds there.
    return instantiate(OmegaConf.create(content))


def _build_by_lightning(content):
    from lightning.pytorch import Trainer
    from lightning.pytorch.cli import LightningArgumentParser

    import lightning_camrobust.callback  # noqa: F401 - short names are known once their module is imported

    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("--seed_everything", type=int)
    parser.add_lightning_class_args(Trainer, "trainer")
    small = {"logger": False, **content["trainer"], "accelerator": "cpu", "devices": 1}
    parsed = parser.parse_object({**content, "trainer": small})
    # Releases before 4.49 know the longer name only.
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    return instantiate(parsed).trainer


def _check_study(content):
    from lightning_camrobust.commands import COMMANDS
    from lightning_camrobust.commands.parsing import command_parser

    parser = command_parser(COMMANDS["study"])
    parser.exit_on_error = False
    return parser.parse_object(content)


_CALLBACK = (
    "trainer:\n  callbacks:\n    - class_path: lightning_camrobust.CAMRobustnessCallback\n      init_args: {%s}\n"
)
_STUDY = "network: torchvision.models.resnet18\n%s: [gradcam]\n"
_HYDRA = "any: {callback: {_target_: lightning_camrobust.%s}}\n"
_HYDRA_SETTING = "any: {_target_: lightning_camrobust.CAMRobustnessCallback, %s}\n"
_NOBODY = "%s: {}\n"


@pytest.mark.parametrize(
    ("template", "right", "wrong"),
    [
        (_CALLBACK, "num_samples: 8", "num_sample: 8"),
        (_STUDY, "methods", "method"),
        (_HYDRA, "CAMRobustnessCallback", "NoSuchCallback"),
        (_HYDRA_SETTING, "num_samples: 8", "num_sample: 8"),
        (_NOBODY, "trainer", "training"),
    ],
)
def test_wrong_configurations_are_found(template, right, wrong):
    check_yaml(template % right)
    with pytest.raises(Exception, match=wrong.partition(":")[0]):
        check_yaml(template % wrong)
