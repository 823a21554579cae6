"""Both callbacks can be written down in YAML, by class path and by name, as LightningCLI reads them."""

import inspect

import jsonargparse
import pytest
from lightning.pytorch.cli import LightningCLI

from lightning_camrobust import CAMRobustnessEarlyStopping, StableCheckpoint
from tests.networks import DigitModule

YAML = """
trainer:
  accelerator: cpu
  logger: false
  callbacks:
    - class_path: {stopping}
      init_args:
        patience: 5
        start_epoch: 2
        guard: val_acc
        guard_floor: 0.6
    - class_path: {keeping}
      init_args:
        dirpath: kept
        rule: pareto
        accuracy_floor: 0.5
        save_last: link
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jsonargparse, about Lightning's own use of it
@pytest.mark.parametrize("prefix", ["lightning_camrobust.", ""], ids=["class path", "name"])
def test_both_are_built_from_yaml(prefix, tmp_path, monkeypatch):
    text = YAML.format(stopping=f"{prefix}CAMRobustnessEarlyStopping", keeping=f"{prefix}StableCheckpoint")
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    monkeypatch.setattr("sys.argv", ["fit.py", "--config", str(file)])
    trainer = LightningCLI(DigitModule, run=False, seed_everything_default=False).trainer
    (stopper,) = [each for each in trainer.callbacks if isinstance(each, CAMRobustnessEarlyStopping)]
    (kept,) = [each for each in trainer.callbacks if isinstance(each, StableCheckpoint)]
    assert (stopper.rule.patience, stopper.rule.start_epoch, stopper.rule.guard_floor) == (5, 2, 0.6)
    assert (kept.rule.rule, kept.rule.accuracy_floor, kept.save_last) == ("pareto", 0.5, "link")
    assert trainer.checkpoint_callback is kept


@pytest.mark.parametrize("wrong", ["patience: many", "mode: middle", "guard_flor: 0.5"])
def test_wrong_yaml_is_refused(wrong):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CAMRobustnessEarlyStopping, "stopper")
    with pytest.raises((jsonargparse.ArgumentError, ValueError)):
        parser.parse_string(f"stopper:\n  {wrong}\n")


@pytest.mark.parametrize("kind", [CAMRobustnessEarlyStopping, StableCheckpoint])
def test_every_argument_has_a_help_text(kind):
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(kind, "it")
    told = {action.dest: action.help for action in parser._actions}
    for name in inspect.signature(kind).parameters:
        assert len(told[f"it.{name}"]) > 15, name
