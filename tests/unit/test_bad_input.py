"""Whatever is wrong with the input: the right exception, in words that help; and what looks odd but is fine."""

import copy
import re
import warnings
from dataclasses import dataclass

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_camrobust import (
    CAMConsistency,
    CAMResponsiveness,
    CAMRobustness,
    CAMRobustnessCallback,
    CAMRobustnessError,
    compute_cams,
    perturb_images,
    segment_images,
)
from lightning_camrobust.batches import find_images
from lightning_camrobust.cams.gradcam import GradCAM
from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import (
    ArgumentError,
    BatchFormatError,
    LayerNotReachedError,
    ModelError,
    NoSpatialLayerError,
    UnknownNameError,
)
from lightning_camrobust.functional import cam_consistency, cam_responsiveness, cam_robustness, rank_biased_overlap
from lightning_camrobust.perturb.gaussian_noise import GaussianNoise

# Lightning's own words about small loaders, and about a class of torch that it still uses.
runs_a_trainer = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning", "ignore:.*LeafSpec.* is deprecated:FutureWarning"
)
NAN = float("nan")


def network(channels=3):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    )  # fmt: skip


def images(batch=2, channels=3, size=16):
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


class Returning(nn.Module):
    """A convolution, and an output of one's choice made from it."""

    def __init__(self, make_output):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.unused = nn.Conv2d(3, 4, 3)
        self.classify = nn.Linear(4, 5)
        self.make_output = make_output

    def forward(self, batch):
        return self.make_output(self, self.conv(batch))


class Classifier(pl.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net
        self.steps = 0

    def forward(self, batch):
        return self.net(batch)

    def training_step(self, batch):
        self.steps += 1
        return self(batch).sum()

    def validation_step(self, batch):
        self.steps += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Items(Dataset):
    """Any list as a data set."""

    def __init__(self, items):
        self.items = list(items)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


class Batches(DataLoader):
    """A loader of ready-made batches."""

    def __init__(self, batches):
        super().__init__(Items(batches), batch_size=None)


def make_callback(**settings):
    return CAMRobustnessCallback(**{"severities": (3,), "segmenter": "grid", "num_samples": 4, **settings})


def validate(callback, items, folder, *, net=None, batch_size=2, fit=False):
    """Run a validation with the callback, by itself or in a fit, and return the trainer and the module."""
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        callbacks=[callback],
    )
    module = Classifier(network() if net is None else net)
    loader = items if isinstance(items, DataLoader) else DataLoader(items, batch_size=batch_size)
    if fit:
        trainer.fit(module, DataLoader(Items(images()), batch_size=2), loader)
    else:
        trainer.validate(module, loader, verbose=False)
    return trainer, module


def every_error(kind=CAMRobustnessError):
    return [kind, *(each for child in kind.__subclasses__() for each in every_error(child))]


@pytest.mark.parametrize("kind", every_error()[1:])
def test_every_error_is_a_value_error_a_runtime_error_or_an_os_error(kind):
    assert [issubclass(kind, each) for each in (ValueError, RuntimeError, OSError)].count(True) == 1


# The target layer


def test_misspelt_layer_shows_the_nearest_names():
    net = nn.Sequential()
    net.add_module("features", network()[:3])
    net.add_module("flatten", nn.Flatten())
    net.add_module("classifier", nn.Linear(16, 5))
    with pytest.raises(UnknownNameError, match=r"no layer named 'featres'\. Nearest: 'features'") as caught:
        compute_cams(net, images(), target_layer="featres")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(UnknownNameError, match=r"no layer named ''\."):
        compute_cams(net, images(), target_layer="")


@runs_a_trainer
def test_misspelt_layer_is_refused_before_any_image_is_loaded(tmp_path):
    class Unreadable(Items):
        def __getitem__(self, index):
            pytest.fail("an image was loaded")

    with pytest.raises(UnknownNameError, match=r"Classifier has no layer named 'ner\.0'\. Nearest: 'net\.0'"):
        validate(make_callback(target_layer="ner.0"), Unreadable(range(4)), tmp_path)


def test_misspelt_layer_is_refused_in_setup():
    module = Classifier(network())
    with pytest.raises(UnknownNameError, match="no layer named 'conv'.*Nearest"):
        make_callback(target_layer="conv").setup(pl.Trainer(accelerator="cpu", logger=False), module, "fit")
    assert module.steps == 0


def test_layer_of_another_network():
    net = network()
    with pytest.raises(ArgumentError, match=r"`target_layer` Conv2d.* is not part of Sequential.*deep copy") as caught:
        compute_cams(net, images(), target_layer=copy.deepcopy(net)[0])
    assert isinstance(caught.value, ValueError)


@runs_a_trainer
def test_layer_of_another_network_in_the_callback(tmp_path):
    with pytest.raises(ArgumentError, match="`target_layer` Conv2d.* is not part of Classifier"):
        validate(make_callback(target_layer=network()[0]), Items(images()), tmp_path)


@pytest.mark.parametrize("layer", [0, {"0"}, [0], [["0"]]])
def test_layer_of_a_wrong_type(layer):
    with pytest.raises(ArgumentError, match="`target_layer` must be a module, its dotted name or None, got"):
        compute_cams(network(), images(), target_layer=layer)


@pytest.mark.parametrize("layers", [[], ["0", "0"], [None], ["0", None]])
def test_layers_that_are_none_or_twice_the_same(layers):
    with pytest.raises(ArgumentError, match="`target_layer` must be one layer, or a list of different ones, got"):
        compute_cams(network(), images(), target_layer=layers)


def test_network_without_a_spatial_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(NoSpatialLayerError, match="no layer with a spatial output .* feeds the prediction") as caught:
        compute_cams(net, images())
    assert isinstance(caught.value, RuntimeError)


def test_layer_without_a_spatial_output():
    with pytest.raises(ModelError, match=r"target layer \(Linear\) must return a spatial tensor .*got shape \(2, 5\)"):
        compute_cams(network(), images(), target_layer="4")


def test_layer_that_does_not_run():
    net = Returning(lambda self, maps: self.classify(maps.mean(dim=(2, 3))))
    with pytest.raises(LayerNotReachedError, match="target layer 'unused' did not run in the model's forward"):
        compute_cams(net, images(), target_layer="unused")


@pytest.mark.parametrize("frozen", [False, True])
def test_layer_whose_output_is_detached(frozen):
    net = Returning(lambda self, maps: self.classify(maps.detach().mean(dim=(2, 3)))).requires_grad_(not frozen)
    with pytest.raises(LayerNotReachedError, match=r"No gradient gets .* target layer \(Conv2d\).*`\.detach\(\)`"):
        compute_cams(net, images(), target_layer="conv")


def test_network_that_does_not_look_at_its_images():
    net = Returning(lambda self, maps: self.classify(torch.zeros(len(maps), 4)))
    with pytest.raises(NoSpatialLayerError, match="feeds the prediction"):
        compute_cams(net, images())


# The network's output


def pooled(net, maps):
    return net.classify(maps.mean(dim=(2, 3)))


WRONG_OUTPUTS = {
    "four_d": (lambda net, maps: maps, r"float logits \(b, classes\) with b=.; got shape \(., 4, 14, 14\)"),
    "four_d_first": (lambda net, maps: (maps, pooled(net, maps)), r"float logits .*got shape \(., 4, 14, 14\)"),
    "wrong_batch": (
        lambda net, maps: pooled(net, maps).repeat(3, 1),
        r"float logits .* with b=(1; got.*3|2; got.*6), 5\)",
    ),
    "class_numbers": (lambda net, maps: pooled(net, maps).argmax(dim=1), r"float logits .*got shape .*torch.int64"),
    "no_tensor": (lambda net, maps: "cat", "logits: a tensor .*; got str"),
    "tuple_of_words": (lambda net, maps: ("cat", "dog"), "logits: a tensor .*; got tuple"),
    "dict_without_logits": (lambda net, maps: {"scores": pooled(net, maps)}, "logits: a tensor .*; got dict"),
    "nothing": (lambda net, maps: None, "logits: a tensor .*; got NoneType"),
}
gives_wrong_outputs = pytest.mark.parametrize(("make_output", "came"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)


@pytest.mark.parametrize("target_layer", [None, "conv"])
@gives_wrong_outputs
def test_output_that_is_no_logits(make_output, came, target_layer):
    with pytest.raises(ModelError, match="The model must return " + came) as caught:
        compute_cams(Returning(make_output), images(), target_layer=target_layer)
    assert isinstance(caught.value, RuntimeError)


@runs_a_trainer
@gives_wrong_outputs
def test_output_that_is_no_logits_in_the_callback(make_output, came, tmp_path):
    with pytest.raises(ModelError, match="The model must return " + came):
        validate(make_callback(target_layer="net.conv"), Items(images()), tmp_path, net=Returning(make_output))


def test_one_row_for_the_whole_batch():
    net = Returning(lambda net, maps: pooled(net, maps).mean(dim=0, keepdim=True))
    with pytest.raises(ModelError, match=r"float logits \(b, classes\) with b=2; got shape \(1, 5\)"):
        compute_cams(net, images())


@pytest.mark.parametrize(
    "wrap",
    [lambda logits, maps: (logits, maps), lambda logits, maps: {"maps": maps, "logits": logits}],
    ids=["logits_first", "logits_named"],
)
def test_logits_in_a_record_are_found(wrap):
    net = Returning(lambda net, maps: wrap(pooled(net, maps), maps))
    plain = copy.deepcopy(net)
    plain.make_output = pooled
    torch.testing.assert_close(compute_cams(net, images()), compute_cams(plain, images()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (torch.tensor([1.0, 2.0]), r"`classes` must be \(2,\) integers.*torch.float32"),
        (torch.tensor([1]), r"`classes` must be \(2,\) integers.*got shape \(1,\)"),
        (torch.tensor([[1], [2]]), r"`classes` must be \(2,\) integers.*got shape \(2, 1\)"),
        (torch.tensor([0, 5]), r"`classes` must lie in 0\.\.4, as the model has 5 logits; got 0\.\.5"),
        (torch.tensor([-1, 0]), r"`classes` must lie in 0\.\.4.*got -1\.\.0"),
    ],
)
def test_classes_to_explain(classes, message):
    with pytest.raises(ArgumentError, match=message):
        compute_cams(network(), images(), classes=classes)


# The batch


@runs_a_trainer
@pytest.mark.parametrize(
    ("item", "came"),
    [
        pytest.param({"scan": torch.rand(3, 8)}, r"a dict \{'scan': a torch.float32 tensor \(2, 3, 8\)\}", id="3-d"),
        pytest.param(
            torch.zeros(3, 8, 8, dtype=torch.uint8), r"a torch.uint8 tensor \(2, 3, 8, 8\)", id="integer_images"
        ),
        pytest.param((1, "cat"), r"a list of \(a torch.int64 tensor \(2,\), a tuple of \(a str", id="words"),
    ],
)
def test_batch_without_images_tells_prepare_batch(item, came, tmp_path):
    with pytest.raises(BatchFormatError, match=f"no images.*it is {came}.*prepare_batch=") as caught:
        validate(make_callback(), Items([item] * 4), tmp_path)
    assert isinstance(caught.value, ValueError)


@dataclass
class Scan:
    mask: torch.Tensor
    scan: torch.Tensor


@pytest.mark.parametrize("make", [lambda **parts: parts, Scan, lambda **parts: (parts, torch.zeros(2))])
def test_several_tensors_that_tell_nothing_are_not_guessed_at(make):
    batch = make(mask=torch.rand(2, 1, 8, 8), scan=torch.rand(2, 3, 8, 8))
    with pytest.raises(BatchFormatError, match="several tensors .*mask.*: a torch.float32 tensor") as caught:
        find_images(batch)
    # The example is Python that finds the picture, not the mask.
    advised = re.search(r"prepare_batch=(lambda batch: .*)\)\.$", str(caught.value)).group(1)
    assert eval(advised)(batch).shape == (2, 3, 8, 8)


def test_a_known_key_or_a_single_candidate_tells():
    scan, mask = torch.rand(2, 3, 8, 8), torch.rand(2, 1, 8, 8)
    assert find_images({"mask": mask, "image": scan}) is scan
    assert find_images({"mask": mask[:, 0], "label": torch.zeros(2), "scan": scan}) is scan
    assert find_images({"views": (scan, mask)}) is scan
    assert find_images({"extra": {"heat": mask}, "scan": {"image": scan}}) is scan
    assert find_images({"extra": mask, "scan": [{"image": scan, "mask": mask}]}) is scan
    assert find_images((scan, mask)) is scan


@runs_a_trainer
@pytest.mark.parametrize(
    ("prepare_batch", "came"),
    [
        (lambda batch: "nonsense", "got a str"),
        (lambda batch: None, "got a NoneType"),
        (lambda batch: batch[0], r"got a torch.float32 tensor \(3, 16, 16\)"),
        (lambda batch: (batch, batch), r"got a tuple of \(a torch.float32 tensor \(2, 3, 16, 16\)"),
        (lambda batch: (batch * 255).byte(), r"got a torch.uint8 tensor \(2, 3, 16, 16\)"),
    ],
    ids=["word", "none", "one_image", "pair", "integers"],
)
def test_prepare_batch_that_returns_something_else(prepare_batch, came, tmp_path):
    with pytest.raises(BatchFormatError, match="`prepare_batch` must return the images, one float tensor.*" + came):
        validate(make_callback(prepare_batch=prepare_batch), Items(images()), tmp_path)


@runs_a_trainer
def test_prepare_batch_that_finds_nothing_does_not_end_the_validation(tmp_path):
    # A bare `next` in the user's function; Lightning would take StopIteration for the end of the data.
    with pytest.raises((CAMRobustnessError, RuntimeError)):
        validate(make_callback(prepare_batch=lambda batch: next(iter([]))), Items(images()), tmp_path)


@runs_a_trainer
@pytest.mark.parametrize("fit", [False, True], ids=["validate", "fit"])
def test_empty_batch_among_others_is_passed_over(fit, tmp_path):
    callback = make_callback()
    validate(callback, Batches([images(0), images(3), images(0), images(1)]), tmp_path, fit=fit)
    assert callback.report["num_images"] == 4


# Names of members


asks_for_a_method = pytest.mark.parametrize(
    "ask",
    [lambda name: compute_cams(network(), images(), name), lambda name: make_callback(methods=[name])],
    ids=["compute_cams", "callback"],
)


@asks_for_a_method
def test_unknown_method_shows_the_nearest(ask):
    with pytest.raises(UnknownNameError, match="no CAM method is called 'gradcm'. Nearest: 'gradcam'") as caught:
        ask("gradcm")
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "ask",
    [lambda name: perturb_images(images(), name), lambda name: make_callback(perturbations=[name])],
    ids=["perturb_images", "callback"],
)
def test_unknown_perturbation_shows_the_nearest(ask):
    with pytest.raises(UnknownNameError, match="no perturbation is called 'gausian_noise'. Nearest: 'gaussian_noise'"):
        ask("gausian_noise")


@pytest.mark.parametrize(
    "ask",
    [lambda name: segment_images(images(), name), lambda name: make_callback(segmenter=name)],
    ids=["segment_images", "callback"],
)
def test_unknown_segmenter_shows_the_nearest(ask):
    with pytest.raises(UnknownNameError, match="no segmenter is called 'quikshift'. Nearest: 'quickshift'"):
        ask("quikshift")


@asks_for_a_method
def test_unknown_class_of_pytorch_grad_cam(ask):
    with pytest.raises(UnknownNameError, match="pytorch_grad_cam has no CAM class 'Nonsense'. Nearest: '"):
        ask("pytorch_grad_cam:Nonsense")
    with pytest.raises(UnknownNameError, match="pytorch_grad_cam has no CAM class 'ScoreCam'. Nearest: 'ScoreCAM'"):
        ask("pytorch_grad_cam:ScoreCam")


def test_unknown_library_before_the_colon():
    with pytest.raises(UnknownNameError, match="'pytorch_gradcam:ScoreCAM' names no known library before the colon"):
        compute_cams(network(), images(), "pytorch_gradcam:ScoreCAM")


def test_class_instead_of_an_instance():
    with pytest.raises(
        ArgumentError, match="CAM method: expected a name or a ready-made instance, got <class '.*GradCAM'>"
    ):
        compute_cams(network(), images(), [GradCAM])


@pytest.mark.parametrize("setting", ["methods", "perturbations", "severities"])
def test_empty_list_of_members(setting):
    with pytest.raises(ArgumentError, match=f"`{setting}` must .* at least one .*, got none"):
        make_callback(**{setting: []})


def test_no_method_to_compute():
    with pytest.raises(ArgumentError, match="`methods` must name at least one CAM method, got none"):
        compute_cams(network(), images(), ())


# Severity


@pytest.mark.parametrize("severity", [0, 6, 2.5, True, "3"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda severity: perturb_images(images(), "gaussian_noise", severity),
        lambda severity: make_callback(severities=(3, severity)),
        lambda severity: make_callback(severities=severity),
    ],
    ids=["perturb_images", "in_a_list", "bare"],
)
def test_severity_is_a_whole_number_from_1_to_5(ask, severity):
    with pytest.raises(
        ArgumentError, match=f"`severity` must be a whole number from 1 .* to 5 .*, got {severity!r}"
    ) as e:
        ask(severity)
    assert isinstance(e.value, ValueError)


# Images

TAKERS = {
    "compute_cams": lambda batch: compute_cams(network(channels=1 if batch.shape[1] == 1 else 3), batch),
    "perturb_images": lambda batch: perturb_images(batch),
    "segment_images": lambda batch: segment_images(batch, "grid"),
}
takes_images = pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)


@takes_images
def test_one_image_without_a_batch_axis(take):
    with pytest.raises(ArgumentError, match=r"`images` must be .*\(b, c, H, W\).*\(3, 16, 16\)"):
        take(images()[0])


@pytest.mark.parametrize("take", [TAKERS["perturb_images"], TAKERS["segment_images"]])
def test_volumes_are_no_images(take):
    with pytest.raises(ArgumentError, match=r"`images` must be .*\(b, c, H, W\).*\(2, 3, 1, 16, 16\)"):
        take(images()[:, :, None])


@takes_images
def test_six_axes(take):
    with pytest.raises(ArgumentError, match=r"`images` must be .*\(b, c, H, W\).*\(2, 3, 1, 1, 16, 16\)"):
        take(images()[:, :, None, None])


@takes_images
def test_integer_images(take):
    with pytest.raises(ArgumentError, match=r"`images` must be float.*got torch.uint8"):
        take((images() * 255).byte())


@takes_images
def test_empty_batch(take):
    with pytest.raises(ArgumentError, match=r"`images` must .*at least one image, got .*\(0, 3, 16, 16\)"):
        take(images()[:0])


@takes_images
def test_images_that_are_no_tensor(take):
    with pytest.raises(ArgumentError, match=r"`images` must be .*\(b, c, H, W\).*got ndarray"):
        take(images().numpy())


def broken_images(value):
    batch = images(4)
    batch[1, 0, 0, 0] = batch[3, 2, 5, 5] = value
    return batch


@takes_images
def test_images_with_nan_are_counted_and_named(take):
    with pytest.raises(ArgumentError, match=r"2 of 4 images hold NaN or infinity \(positions \[1, 3\]\)"):
        take(broken_images(NAN))


@pytest.mark.parametrize("take", [TAKERS["compute_cams"], TAKERS["perturb_images"]])
@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
def test_images_with_infinity_are_counted_and_named(take, value):
    with pytest.raises(ArgumentError, match=r"2 of 4 images hold NaN or infinity \(positions \[1, 3\]\)"):
        take(broken_images(value))


@runs_a_trainer
def test_images_with_nan_in_the_callback(tmp_path):
    with pytest.raises(ArgumentError, match=r"2 of 4 images hold NaN or infinity \(positions \[1, 3\]\)"):
        validate(make_callback(), Items(broken_images(NAN)), tmp_path, batch_size=4)


@pytest.mark.parametrize("factor", [255.0, 1.01, -0.01])
def test_segments_of_images_outside_the_unit_interval(factor):
    batch = images()
    batch[0, 0, 0, 0] = 1.0
    with pytest.raises(ArgumentError, match=r"`images` must lie in \[0, 1\].*got values from .*Undo the normalisation"):
        segment_images(batch * factor, "grid")


def test_segmenter_that_returns_another_size():
    def halve(batch):
        return torch.zeros(len(batch), 8, 8, dtype=torch.int64)

    with pytest.raises(ArgumentError, match=r"must return labels \(b, H, W\) = \(2, 16, 16\), got \(2, 8, 8\)"):
        segment_images(images(), halve)


def test_segmenter_that_forgets_an_image():
    with pytest.raises(ArgumentError, match=r"must return labels \(b, H, W\) = \(2, 16, 16\), got \(1, 16, 16\)"):
        segment_images(images(), lambda batch: torch.zeros(1, 16, 16, dtype=torch.int64))


@takes_images
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (1, 1), (2, 1)])
def test_single_images_and_grey_images_work(take, batch, channels):
    result = take(images(batch, channels))
    (result,) = result.values() if isinstance(result, dict) else (result,)
    assert len(result) == batch
    assert result.isfinite().all()


@runs_a_trainer
@pytest.mark.parametrize(("batch", "channels"), [(1, 3), (1, 1), (4, 1)])
def test_single_images_and_grey_images_work_in_the_callback(batch, channels, tmp_path):
    callback = make_callback(num_samples=batch)
    trainer, _ = validate(callback, Items(images(batch, channels)), tmp_path, net=network(channels))
    assert callback.report["num_images"] == batch
    assert 0 <= trainer.callback_metrics["val_cam_robustness"] <= 1


# Normalisation constants

CONSTANT_TAKERS = {
    "perturb_images": lambda **constants: perturb_images(images(), **constants),
    "callback": make_callback,
}
takes_constants = pytest.mark.parametrize("take", CONSTANT_TAKERS.values(), ids=CONSTANT_TAKERS)


@takes_constants
def test_mean_without_std(take):
    with pytest.raises(ArgumentError, match="`mean` and `std` belong together, `std` is missing"):
        take(mean=0.5)
    with pytest.raises(ArgumentError, match="`mean` and `std` belong together, `mean` is missing"):
        take(std=0.5)


@takes_constants
@pytest.mark.parametrize("std", [0, 0.0, -1.0, NAN, (0.2, 0.0, 0.2)])
def test_std_that_cannot_be_divided_by(take, std):
    mean = (0.5,) * 3 if isinstance(std, tuple) else 0.5
    with pytest.raises(ArgumentError, match=r"`std` must be above 0 in every channel, got \("):
        take(mean=mean, std=std)


@takes_constants
def test_mean_and_std_of_unequal_length(take):
    with pytest.raises(ArgumentError, match="`mean` and `std` must have the same length, got 3 and 2"):
        take(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2))


def test_constants_for_another_number_of_channels():
    with pytest.raises(ArgumentError, match=r"one value, or one a channel \(3 in these images\), got 2"):
        perturb_images(images(), mean=(0.5, 0.5), std=(0.2, 0.2))


@runs_a_trainer
def test_constants_for_another_number_of_channels_in_the_callback(tmp_path):
    with pytest.raises(ArgumentError, match=r"one value, or one a channel \(3 in these images\), got 2"):
        validate(make_callback(mean=(0.5, 0.5), std=(0.2, 0.2)), Items(images()), tmp_path)


# Other settings of the callback


def test_misspelt_classifier_is_refused_in_setup():
    with pytest.raises(UnknownNameError, match="`classifier`: Classifier has no layer named 'nett'. Nearest: 'net'"):
        make_callback(classifier="nett").setup(
            pl.Trainer(accelerator="cpu", logger=False), Classifier(network()), "fit"
        )


@runs_a_trainer
def test_classifier_of_a_wrong_type(tmp_path):
    with pytest.raises(ArgumentError, match="`classifier` must be the name of a submodule or a function .*, got 3"):
        validate(make_callback(classifier=3), Items(images()), tmp_path)


@pytest.mark.parametrize("setting", ["num_samples", "every_n_epochs", "chunk_size"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8"])
def test_counts_are_at_least_1(setting, value):
    with pytest.raises(ArgumentError, match=f"`{setting}` must be a whole number of at least 1, got {value!r}"):
        make_callback(**{setting: value})


def test_number_of_pictures_may_be_0_but_no_less():
    assert make_callback(log_images=0).log_images == 0
    with pytest.raises(ArgumentError, match="`log_images` must be a whole number of at least 0, got -1"):
        make_callback(log_images=-1)


@pytest.mark.parametrize("name", ["a/b", "", 3, None])
def test_name_is_a_word(name):
    with pytest.raises(ArgumentError, match=f"`name` must be a word without '/'.*got {name!r}"):
        make_callback(name=name)


def test_unknown_severity_column():
    with pytest.raises(ArgumentError, match="`column` must be 'auto', 'imagenet' or 'cifar', got 'mnist'"):
        perturb_images(images(), GaussianNoise(column="mnist"))


# Runs that end with fewer numbers than hoped for


ignores_empty_loader = pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero:UserWarning")


@runs_a_trainer
@ignores_empty_loader
def test_empty_loader_is_told(tmp_path):
    callback = make_callback()
    with pytest.warns(UserWarning, match="no images came during .*no cam score.*non-empty validation loader"):
        trainer, _ = validate(callback, Items([]), tmp_path)
    assert callback.report is None
    assert callback.history == []
    assert not any("cam" in key for key in trainer.callback_metrics)


@runs_a_trainer
@ignores_empty_loader
def test_empty_loader_is_told_in_the_users_words(tmp_path):
    with pytest.warns(UserWarning, match="no images came during `validate`"):
        validate(make_callback(), Items([]), tmp_path)


@runs_a_trainer
def test_fewer_images_than_asked_for(tmp_path):
    callback = make_callback(num_samples=50)
    trainer, _ = validate(callback, Items(images(5)), tmp_path)
    assert callback.report["num_images"] == 5
    assert trainer.callback_metrics["val_cam_num_images"] == 5


def silent_network():
    net = network()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


def broken_network():
    net = network()
    nn.init.constant_(net[4].weight, NAN)
    return net


@runs_a_trainer
@pytest.mark.parametrize("net", [silent_network, broken_network])
def test_maps_that_are_all_flat(net, tmp_path):
    callback = make_callback()
    with pytest.warns(UserWarning, match="no pair of maps could be scored.*`val_cam_robustness` is not logged") as said:
        trainer, _ = validate(callback, Items(images(4)), tmp_path, net=net())
    assert sum("CAMRobustnessCallback" in str(each.message) for each in said) == 1
    assert "val_cam_robustness" not in trainer.callback_metrics
    assert trainer.callback_metrics["val_cam_degenerate_rate"] == 1
    assert trainer.callback_metrics["val_cam_num_images"] == 4
    assert callback.report["robustness"] is None


# Ready maps: functions and metrics

FUNCTIONS = (cam_robustness, cam_consistency, cam_responsiveness)
METRICS = (CAMRobustness, CAMConsistency, CAMResponsiveness)


def by_metric(kind):
    def score(*pairs, **settings):
        metric = kind(**settings)
        metric.update(*pairs)
        return metric.compute()

    return score


scores_maps = pytest.mark.parametrize(
    "score",
    [*FUNCTIONS, *map(by_metric, METRICS)],
    ids=[*(each.__name__ for each in FUNCTIONS), *(each.__name__ for each in METRICS)],
)


def pairs(**changes):
    """Two pairs of maps, one of a kept and one of a changed prediction, with parts exchanged."""
    generator = torch.Generator().manual_seed(0)
    parts = {
        "clean_maps": torch.rand(2, 4, 4, generator=generator),
        "noisy_maps": torch.rand(2, 4, 4, generator=generator),
        "clean_classes": torch.tensor([0, 1]),
        "noisy_classes": torch.tensor([0, 2]),
        "segments": (torch.arange(64).reshape(8, 8) // 16).repeat(2, 1, 1),
    }
    assert set(changes) <= set(parts)
    return tuple({**parts, **changes}.values())


@scores_maps
def test_maps_that_are_right_give_a_number(score):
    assert 0 <= float(score(*pairs())) <= 1


@scores_maps
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noisy_maps": torch.rand(2, 3, 4)}, r"`clean_maps` and `noisy_maps` must have equal shape.*\(2, 3, 4\)"),
        ({"noisy_maps": torch.rand(1, 4, 4)}, r"`clean_maps` and `noisy_maps` must have equal shape.*\(1, 4, 4\)"),
        ({"clean_maps": torch.rand(2, 1, 4, 4)}, r"`clean_maps` must be float maps \(b, h, w\), got .*\(2, 1, 4, 4\)"),
        ({"noisy_maps": torch.rand(2, 1, 4, 4)}, r"`noisy_maps` must be float maps \(b, h, w\), got .*\(2, 1, 4, 4\)"),
        ({"clean_maps": torch.ones(2, 4, 4).int()}, r"`clean_maps` must be float maps \(b, h, w\), got torch.int32"),
        ({"clean_maps": torch.rand(2, 4, 4).numpy()}, r"`clean_maps` must be float maps \(b, h, w\), got ndarray"),
        ({"clean_classes": torch.tensor([0])}, r"`clean_classes` must be \(2,\) integers.*\(1,\)"),
        ({"noisy_classes": torch.tensor([[0], [1]])}, r"`noisy_classes` must be \(2,\) integers.*\(2, 1\)"),
        ({"noisy_classes": torch.tensor([0.0, 1.0])}, r"`noisy_classes` must be \(2,\) integers.*torch.float32"),
        ({"clean_classes": torch.rand(2, 5)}, r"`clean_classes` must be \(2,\) integers.*torch.float32 \(2, 5\)"),
        ({"segments": torch.zeros(3, 8, 8).long()}, r"`segments` must be labels \(2, H, W\).*got \(3, 8, 8\)"),
        ({"segments": torch.zeros(8, 8).long()}, r"`segments` must be labels \(2, H, W\).*got \(8, 8\)"),
        (
            {"segments": torch.zeros(2, 3, 8).long()},
            r"`segments` must be at least as large as the maps.*\(3, 8\).*\(4, 4\)",
        ),
        ({"segments": torch.zeros(2, 8, 8)}, r"`segments` must be integer labels \(b, H, W\), got torch.float32"),
        ({"segments": torch.ones(2, 8, 8).bool()}, r"`segments` must be integer labels \(b, H, W\), got torch.bool"),
    ],
    ids=lambda each: None if isinstance(each, str) else "-".join(f"{k}{tuple(v.shape)}" for k, v in each.items()),
)
def test_maps_that_do_not_fit(score, changes, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        score(*pairs(**changes))
    assert isinstance(caught.value, ValueError)


ROWS = (torch.rand(1, 3), torch.rand(1, 3))
SETTING_TAKERS = {
    "rank_biased_overlap": lambda **settings: rank_biased_overlap(*ROWS, **settings),
    "RankBiasedOverlap": RankBiasedOverlap,
    **{each.__name__: (lambda each=each, **settings: each(*pairs(), **settings)) for each in FUNCTIONS},
    **{each.__name__: each for each in METRICS},
    "callback": lambda p=0.2, **settings: make_callback(rbo_p=p, **settings),
}
takes_settings = pytest.mark.parametrize("take", SETTING_TAKERS.values(), ids=SETTING_TAKERS)


@takes_settings
@pytest.mark.parametrize("p", [0, 1, 0.0, 1.0, -0.2, 1.5, NAN, "0.2", None, True])
def test_p_lies_between_0_and_1(take, p):
    with pytest.raises(ArgumentError, match=f"`p` must lie strictly between 0 and 1, got {p!r}"):
        take(p=p)


@takes_settings
@pytest.mark.parametrize("ties", ["c", "B", None])
def test_unknown_ties(take, ties):
    with pytest.raises(ArgumentError, match=f"`ties` must be 'b', 'a', 'w' or 'stable', got {ties!r}"):
        take(ties=ties)


@pytest.mark.parametrize("take", [*FUNCTIONS, *METRICS], ids=lambda each: each.__name__)
@pytest.mark.parametrize("undefined", ["zero", 1, None])
def test_unknown_rule_for_empty_sets(take, undefined):
    parts = pairs() if take in FUNCTIONS else ()
    with pytest.raises(ArgumentError, match=f"`undefined` must be 'nan' or 'vacuous', got {undefined!r}"):
        take(*parts, undefined=undefined)


@pytest.mark.parametrize(
    ("clean", "noisy", "message"),
    [
        (torch.rand(3), torch.rand(3), r"score rows \(b, s\) of equal shape, got \(3,\) and \(3,\)"),
        (torch.rand(1, 3), torch.rand(1, 4), r"score rows \(b, s\) of equal shape, got \(1, 3\) and \(1, 4\)"),
    ],
)
def test_score_rows_that_do_not_fit(clean, noisy, message):
    with pytest.raises(ArgumentError, match=message):
        rank_biased_overlap(clean, noisy)


@pytest.mark.parametrize("present", [torch.ones(1, 4).bool(), torch.ones(1, 3)])
def test_mask_of_segments_that_does_not_fit(present):
    with pytest.raises(ArgumentError, match=r"`present` must be bool \(1, 3\), got"):
        rank_biased_overlap(*ROWS, present=present)


ALL_KEPT = {"noisy_classes": torch.tensor([0, 1])}
ALL_CHANGED = {"noisy_classes": torch.tensor([3, 4])}
NONE_SCORED = {"clean_maps": torch.zeros(2, 4, 4)}


@pytest.mark.parametrize(
    ("kind", "changes", "needed"),
    [
        (CAMRobustness, ALL_KEPT, "prediction changed"),
        (CAMRobustness, ALL_CHANGED, "prediction survived"),
        (CAMRobustness, NONE_SCORED, "degenerate_count=2"),
        (CAMConsistency, ALL_CHANGED, r"it needs pairs whose prediction survived.*same_count=0, changed_count=2"),
        (CAMConsistency, NONE_SCORED, "degenerate_count=2"),
        (CAMResponsiveness, ALL_KEPT, r"it needs pairs whose prediction changed.*same_count=2, changed_count=0"),
        (CAMResponsiveness, NONE_SCORED, "degenerate_count=2"),
    ],
)
def test_metric_of_an_empty_set_is_nan_with_one_warning(kind, changes, needed):
    metric = kind()
    metric.update(*pairs(**changes))
    with pytest.warns(UserWarning, match=f"{kind.__name__} is undefined and returns NaN.*{needed}") as said:
        assert metric.compute().isnan()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("kind", "changes"),
    [(CAMConsistency, ALL_CHANGED), (CAMResponsiveness, ALL_KEPT)],
    ids=["consistency", "responsiveness"],
)
def test_empty_set_counts_as_1_by_the_vacuous_rule(kind, changes):
    metric = kind(undefined="vacuous")
    metric.update(*pairs(**changes))
    assert metric.compute() == 1


@pytest.mark.parametrize(("changes", "other"), [(ALL_KEPT, cam_consistency), (ALL_CHANGED, cam_responsiveness)])
def test_robustness_is_the_other_factor_by_the_vacuous_rule(changes, other):
    metric = CAMRobustness(undefined="vacuous")
    metric.update(*pairs(**changes))
    assert metric.compute() == other(*pairs(**changes))
    assert metric.compute() == cam_robustness(*pairs(**changes), undefined="vacuous")


@pytest.mark.parametrize("kind", METRICS)
def test_without_a_scored_pair_not_even_the_vacuous_rule_helps(kind):
    metric = kind(undefined="vacuous")
    metric.update(*pairs(**NONE_SCORED))
    with pytest.warns(UserWarning, match="is undefined and returns NaN") as said:
        assert metric.compute().isnan()
    assert len(said) == 1


@pytest.mark.parametrize("score", FUNCTIONS)
def test_functions_are_nan_without_a_word(score):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(*pairs(**NONE_SCORED)).isnan()
        assert score(*pairs(**NONE_SCORED), undefined="vacuous").isnan()
