"""Callbacks built by Hydra, and members named by a path."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_camrobust import CAMRobustnessCallback, CAMRobustnessEarlyStopping, StableCheckpoint
from lightning_camrobust.cams.gradcam_plusplus import GradCAMPlusPlus
from lightning_camrobust.cams.layercam import LayerCAM
from lightning_camrobust.errors import ArgumentError, UnknownNameError
from lightning_camrobust.members import resolve_member
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.segment.grid import Grid
from tests.networks import DigitModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),  # of torch, about Lightning's own use of it
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
]
FOLDER = Path(__file__).parents[2] / "examples" / "hydra_config"


def test_hydra_composes_and_instantiates():
    changes = ["callback.num_samples=12", "callback.severities=[2]", "+callback.target_layer=[net.0,net.3]"]
    with initialize_config_dir(str(FOLDER), version_base=None):
        config = compose("config", overrides=changes)
    watch = instantiate(config.callback)
    assert watch._plan.methods["gradcam_plusplus"] == GradCAMPlusPlus(epsilon=1e-9)
    assert watch._plan.noises[1].perturbation.levels == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert (watch.num_samples, watch.target_layer) == (12, ["net.0", "net.3"])
    assert type(watch.target_layer) is list
    assert isinstance(instantiate(config.others.stop), CAMRobustnessEarlyStopping)
    assert isinstance(instantiate(config.others.keep), StableCheckpoint)


@pytest.mark.parametrize("convert", ["none", "partial", "object", "all"])
def test_containers_of_hydra_work(convert):
    noise = "lightning_camrobust.perturb.gaussian_noise.GaussianNoise"
    callback = {
        "_target_": "lightning_camrobust.CAMRobustnessCallback",
        "_convert_": convert,
        "methods": ["gradcam", "lightning_camrobust.cams.layercam.LayerCAM"],
        "perturbations": {"_target_": noise, "levels": [0.1, 0.2, 0.3, 0.4, 0.5]},
        "severities": [1, 3],
        "target_layer": ["net.0", "net.3"],
        "mean": [0.5],
        "std": [0.5],
    }
    watch = instantiate(OmegaConf.create(callback))
    loader = torch.utils.data.DataLoader([(torch.rand(1, 16, 16), 0)] * 4, batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(callbacks=[watch], **quiet).validate(DigitModule(), loader, verbose=False)
    assert isinstance(watch, CAMRobustnessCallback)
    assert watch.report["num_images"] == 4
    assert watch.report["target_layer"] == "net.0, net.3"
    assert watch._space == PixelSpace((0.5,), (0.5,))


def test_wrapped_member_of_hydra_is_explained():
    target = {"_target_": "lightning_camrobust.CAMRobustnessCallback"}
    methods = ["gradcam", {"_target_": "lightning_camrobust.cams.layercam.LayerCAM"}]
    with pytest.raises(InstantiationException, match="From Hydra: add `_convert_: all` beside `_target_`"):
        instantiate(OmegaConf.create({**target, "methods": methods}))
    assert list(instantiate({**target, "_convert_": "all", "methods": methods})._plan.methods) == [
        "gradcam",
        "layercam",
    ]


# Names of members that are paths, for configuration files without class_path and for the command line.


def test_path_of_class_function_and_instance():
    assert resolve_member("cams", "lightning_camrobust.cams.layercam.LayerCAM") == LayerCAM()
    assert resolve_member("compare", "torch.cosine_similarity") is torch.cosine_similarity
    assert resolve_member("segment", f"{__name__}.READY") is READY


READY = Grid(rows=2, columns=2)


@pytest.mark.parametrize("path", ["os.nothing", "no_such_package.Thing", ".relative", "lightning_camrobust."])
def test_path_to_nothing(path):
    with pytest.raises(UnknownNameError, match=f"segmenter: nothing can be imported as {path!r}"):
        resolve_member("segment", path)


def test_path_to_what_is_no_member():
    with pytest.raises(ArgumentError, match="segmenter: expected a name or a ready-made instance, got 3.14"):
        resolve_member("segment", "math.pi")
