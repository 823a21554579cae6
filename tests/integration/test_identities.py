"""What the score must say about explainers whose behaviour is known."""

import math

import pytest
import torch
from torch import nn

from lightning_camrobust.functional import (
    cam_consistency,
    cam_responsiveness,
    cam_robustness,
    rank_biased_overlap,
)
from lightning_camrobust.heldout import HeldOutImages
from lightning_camrobust.perturb.gaussian_noise import GaussianNoise
from lightning_camrobust.plan import make_plan
from lightning_camrobust.session import ProbeSession
from tests import oracles

COUNT, SIDE = 3000, 5
SEGMENTS = SIDE * SIDE  # one a cell, so that random maps rank them quite at random


@pytest.fixture(scope="module")
def segments():
    return torch.arange(SEGMENTS).reshape(SIDE, SIDE).expand(COUNT, SIDE, SIDE)


@pytest.fixture(scope="module")
def classes():
    return torch.randint(0, 2, (2, COUNT), generator=torch.Generator().manual_seed(2))


def maps(seed):
    return torch.rand(COUNT, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def test_constant_explainer_scores_zero(segments, classes):
    one = maps(0)[:1].expand(COUNT, SIDE, SIDE)
    assert cam_consistency(one, one, *classes, segments) == 1
    assert cam_responsiveness(one, one, *classes, segments) == 0
    assert cam_robustness(one, one, *classes, segments) == 0


def test_random_explainer_scores_the_chance_level(segments, classes):
    clean, noisy = maps(0), maps(1)
    kept = int((classes[0] == classes[1]).sum())
    for p in (0.2, 0.9):
        level = oracles.chance_level(SEGMENTS, p)
        found = cam_consistency(clean, noisy, *classes, segments, p=p).item()
        rows = torch.rand(2, 20_000, SEGMENTS, generator=torch.Generator().manual_seed(5))
        spread = rank_biased_overlap(rows[0], rows[1], p).std().item()
        assert abs(found - level) < 2.576 * spread / math.sqrt(kept)  # the 99% interval
        response = cam_responsiveness(clean, noisy, *classes, segments, p=p).item()
        assert abs(response - (1 - level)) < 2.576 * spread / math.sqrt(COUNT - kept)
        print(f"p {p}: C {found:.4f}, chance {level:.4f} +- {2.576 * spread / math.sqrt(kept):.4f}")


def test_oracle_explainer_scores_near_one(segments, classes):
    clean = maps(0)
    changed = classes[0] != classes[1]
    noisy = torch.where(changed[:, None, None], clean.max() - clean, clean)  # same class, same map; else upside down
    assert cam_robustness(clean, noisy, *classes, segments).item() > 0.95


def test_noise_of_zero_strength_leaves_everything_in_place():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    plan = make_plan(
        ("gradcam_plusplus", "layercam", "eigencam"),
        [GaussianNoise(levels=(0.0, 0.0, 0.0, 0.0, 0.0))],
        severities=(1, 5),
        segmenter="grid",
    )
    session = ProbeSession(plan, net, HeldOutImages(num_samples=16, chunk_size=8))
    session.take(torch.rand(16, 3, 16, 16))
    report = session.finish()
    for row in report["pooled"]:
        assert row["consistency"] == 1
        assert row["responsiveness"] is None
        assert row["robustness"] is None
        assert row["changed_count"] == 0
    assert report["robustness"] == 1  # the vacuous rule of the headline
