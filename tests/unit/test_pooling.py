import numpy as np
import pytest
import torch

from lightning_camrobust.pooling import build_pooling, pool_maps, rankable_maps, snap_ties
from tests import oracles


@pytest.mark.parametrize(
    ("map_size", "picture"),
    [((7, 7), (224, 224)), ((8, 8), (32, 32)), ((1, 5), (9, 31)), ((12, 12), (12, 12)), ((3, 4), (50, 37))],
)
def test_operator_equals_upsampling_and_region_means(map_size, picture):
    generator = torch.Generator().manual_seed(0)
    segments = torch.randint(0, 23, (4, *picture), generator=generator)
    segments[1] = segments[1] % 5  # fewer segments than the others
    maps = torch.rand(4, *map_size, generator=generator)
    operator, present = build_pooling(segments, map_size=map_size)
    wanted = oracles.segment_means(maps, segments)
    np.testing.assert_array_equal(present.numpy(), ~np.isnan(wanted))
    found = pool_maps(maps, operator).numpy()
    np.testing.assert_allclose(found[present.numpy()], wanted[present.numpy()], rtol=0, atol=1e-12)
    assert (found[~present.numpy()] == 0).all()


def test_rows_of_the_operator_are_averages():
    operator, present = build_pooling(torch.arange(9).reshape(1, 3, 3), map_size=(2, 2))
    assert present.all()
    torch.testing.assert_close(operator.sum(dim=2), torch.ones(1, 9, dtype=torch.float64))


def test_negative_labels_belong_to_no_segment():
    segments = torch.tensor([[[-1, 0], [1, 1]]])
    operator, _ = build_pooling(segments, map_size=(2, 2))
    assert pool_maps(torch.tensor([[[100.0, 1.0], [2.0, 4.0]]]), operator).tolist() == [[1.0, 3.0]]


def test_dust_makes_ties_and_scale_does_not_matter():
    maps = torch.tensor([[[1.0, 0.5], [0.25, 0.0]]])
    scores = torch.tensor([[1.0, 0.5, 0.5 + 2e-7, 0.5 + 5e-6]], dtype=torch.float64)
    snapped = snap_ties(scores, maps)
    assert snapped[0, 1] == snapped[0, 2]
    assert snapped[0, 3] > snapped[0, 1]
    torch.testing.assert_close(snap_ties(scores * 1e-9, maps * 1e-9), snapped, rtol=0, atol=0)


def test_only_maps_with_an_order_are_rankable():
    bump = torch.zeros(3, 3)
    bump[1, 1] = 1
    maps = torch.stack([bump, bump * 0, bump * 0 + 5, bump * 1e-12, bump * 1e-8 + 1, bump / 0, bump * torch.nan])
    two = torch.ones(len(maps), 2, dtype=torch.bool)
    assert rankable_maps(maps, two).tolist() == [True, False, False, True, False, False, False]
    assert not rankable_maps(bump[None], torch.tensor([[True, False]])).item()
