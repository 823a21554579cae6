"""The host must not wait for the accelerator inside a probe, except where data has to leave it."""

import collections
import traceback
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_camrobust import principal
from lightning_camrobust.cache import TensorCache
from lightning_camrobust.isolation import observe_only
from lightning_camrobust.pixels import PixelSpace
from lightning_camrobust.plan import make_plan
from lightning_camrobust.principal import _by_lapack, _by_squaring
from lightning_camrobust.probe import probe
from tests.networks import small_cnn

# Ablation-CAM is left out: whether its closed form holds, and whether the head was run rightly, the host has to know.
METHODS = ("gradcam", "gradcam_plusplus", "xgradcam", "hirescam", "layercam", "eigencam")
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
# Operations whose result, or whose result's size, the host has to know; `lift_fresh` sends the host's numbers over.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim", "lift_fresh", "is_nonzero",
}  # fmt: skip


class Waits(TorchDispatchMode):
    """Count operations that would make the host wait for an accelerator, by the place in the package."""

    def __init__(self):
        super().__init__()
        self.places = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(getattr(each, "dtype", None) == torch.bool for each in args[1])
        if name in WAITING or by_mask:
            frames = [frame for frame in traceback.extract_stack() if "lightning_camrobust" in frame.filename]
            self.places[f"{name} in {frames[-1].name if frames else 'a test'}"] += 1
        return func(*args, **(kwargs or {}))


def prepared_probe(device="cpu"):
    net = small_cnn(3).eval().to(device)
    images = torch.rand(4, 3, 32, 32, device=device)
    plan = make_plan(METHODS, NOISES, severities=(1, 3), segmenter="grid")
    settings = {"plan": plan, "target_layer": net[6], "space": PixelSpace((0.5,), (0.2,)), "runs": 1}
    operators = TensorCache(2**20)

    def run():
        with observe_only(net):
            return probe(net, images, operators=operators, **settings).comparison

    run()  # tables, constants and operators are made once
    return run


def test_a_probe_waits_nowhere(monkeypatch):
    # What an accelerator would do; LAPACK is the host's own.
    monkeypatch.setattr(principal, "_by_lapack", _by_squaring)
    run = prepared_probe()
    with Waits() as waits:
        run()
    assert not waits.places


@pytest.mark.parametrize("wait", [lambda row: row.sum().item(), lambda row: row[row > 0], lambda row: row.nonzero()])
def test_the_detector_sees_a_wait(wait):
    with Waits() as waits:
        wait(torch.rand(3))
    assert waits.places.total() == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_probe_waits_once_on_a_gpu():
    run = prepared_probe("cuda")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    # The keys of the images, by which the host finds what it knows of them.
    assert len([each for each in caught if "synchroniz" in str(each.message)]) == 1


@pytest.mark.parametrize("size", [2, 9, 49])
def test_eigenvectors_by_squaring(size):
    cells = torch.randn(5, size, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gram = cells @ cells.transpose(1, 2)
    gram[-1] = 0  # a flat map has no direction
    (value, vector), (expected_value, expected_vector) = _by_squaring(gram), _by_lapack(gram)
    torch.testing.assert_close(value, expected_value)
    cosine = (vector * expected_vector).sum(dim=1).abs()
    torch.testing.assert_close(cosine[:-1], torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-9)
    assert not vector[-1].any()


def test_eigenvector_of_a_degenerate_spectrum_is_an_eigenvector():
    gram = torch.diag(torch.tensor([3.0, 3.0, 1.0], dtype=torch.float64))[None]
    value, vector = _by_squaring(gram)
    torch.testing.assert_close(gram @ vector[..., None], value[..., None] * vector[..., None])
