"""What the similarities say of themselves, and that the dtype of a map is not felt."""

import numpy as np
import pytest
import torch

from lightning_camrobust.members import member_names, resolve_member

ALL = [resolve_member("compare", name) for name in member_names("compare")]
OF_MAPS = [each for each in ALL if getattr(each, "of_maps", False)]
OF_SCORES = [each for each in ALL if each not in OF_MAPS]


def scores(seed):
    return torch.tensor(np.random.default_rng(seed).permuted(np.tile(np.arange(1.0, 10.0), (6, 1)), axis=1))


@pytest.mark.parametrize("member", OF_SCORES, ids=repr)
def test_a_similarity_of_ranks_sees_only_the_order(member):
    clean, noisy = scores(0), scores(1)
    present = torch.ones_like(clean, dtype=torch.bool)
    bent = member(clean.exp(), noisy**3 - 7, present=present)
    assert torch.equal(bent, member(clean, noisy, present=present)) == getattr(member, "of_ranks", False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("member", OF_MAPS, ids=repr)
def test_maps_of_any_float_type_are_compared_in_float64(member, dtype):
    generator = torch.Generator().manual_seed(0)
    # A faint difference on a large level, of which the squares and sums of a narrow type would leave little.
    clean = (0.9 + 0.1 * torch.rand(5, 12, 13, generator=generator)).to(dtype)
    noisy = (clean + 0.02 * torch.rand(5, 12, 13, generator=generator)).to(dtype)
    found = member(clean, noisy)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, member(clean.double(), noisy.double()), rtol=0, atol=1e-14)
