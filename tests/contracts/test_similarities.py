"""What every similarity promises."""

import pickle
from collections import Counter

import pytest
import torch

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from tests.contracts.specimens import specimens, unfinished

SIMILARITIES = specimens("compare")
EXACT = {"rtol": 0, "atol": 0}


def distinct_rows(rows=40, segments=12, seed=0):
    """Score rows without a tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(segments, generator=generator) for _ in range(rows)]).double()


def tied_rows(rows=40, segments=12, seed=0):
    return torch.randint(0, 4, (rows, segments), generator=torch.Generator().manual_seed(seed)).double()


def some_present(rows=40, segments=12, seed=7):
    """Half of the segments, at least two a row."""
    present = torch.rand(rows, segments, generator=torch.Generator().manual_seed(seed)) < 0.5
    present[:, :2] = True
    return present


def all_present(rows):
    return torch.ones_like(rows, dtype=torch.bool)


def test_every_file_shows_examples():
    assert SIMILARITIES
    assert unfinished("compare") == []


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, SIMILARITIES)).items() if count > 1] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_one_number_a_row_between_0_and_1(compare, rows, dtype):
    clean, noisy = rows(seed=0).to(dtype), rows(seed=1).to(dtype)
    values = compare(clean, noisy, present=some_present())
    assert (values.shape, values.dtype) == ((40,), torch.float64)
    assert ((values >= 0) & (values <= 1)).all()
    # A constant would lie in the range as well.
    assert values.unique().numel() > 5


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_a_row_without_ties_is_fully_similar_to_itself_and_to_no_other_order(compare):
    rows, present = distinct_rows(), some_present()
    torch.testing.assert_close(compare(rows, rows, present=present), torch.ones(40).double(), rtol=0, atol=1e-12)
    assert (compare(rows, -rows, present=present) < 0.9).all()


@pytest.mark.parametrize("p", [0.2, 0.9])
@pytest.mark.parametrize("ties", ["b", "w", "stable"])
def test_a_row_with_ties_is_fully_similar_to_itself(ties, p):
    rows = tied_rows()
    values = RankBiasedOverlap(p=p, ties=ties)(rows, rows, present=some_present())
    torch.testing.assert_close(values, torch.ones(40).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_only_the_order_counts(compare):
    clean, noisy, present = distinct_rows(seed=0), distinct_rows(seed=1), some_present()
    stretched = compare(clean.exp(), 1e-3 * noisy - 5, present=present)
    torch.testing.assert_close(stretched, compare(clean, noisy, present=present), **EXACT)


@pytest.mark.parametrize("other", [1e9, -1e9, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_absent_segments_have_no_say(compare, rows, other):
    clean, noisy, present = rows(seed=0), rows(seed=1), some_present()
    assert not present.all()
    wanted = compare(clean, noisy, present=present)
    changed = compare(clean.masked_fill(~present, other), noisy.masked_fill(~present, -other), present=present)
    torch.testing.assert_close(changed, wanted, **EXACT)


@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_a_row_counts_the_same_without_its_absent_segments(compare, rows):
    clean, noisy, present = rows(seed=0), rows(seed=1), some_present()
    padded = compare(clean, noisy, present=present)
    for index, here in enumerate(present):
        short = [row[index, here][None] for row in (clean, noisy)]
        bare = compare(*short, present=all_present(short[0]))
        torch.testing.assert_close(bare, padded[index : index + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_rows_do_not_sway_each_other(compare, rows):
    clean, noisy, present = rows(seed=0), rows(seed=1), some_present()
    together = compare(clean, noisy, present=present)
    alone = [compare(*(each[i : i + 1] for each in (clean, noisy)), present=present[i : i + 1]) for i in range(40)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-14)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_a_broken_row_keeps_its_trouble_to_itself(compare):
    clean, noisy, present = distinct_rows(seed=0), distinct_rows(seed=1), some_present()
    wanted = compare(clean, noisy, present=present)
    broken, missing = clean.clone(), present.clone()
    broken[3, 0] = torch.nan
    missing[5] = False
    values = compare(broken, noisy, present=missing)
    assert values[[3, 5]].isnan().all()
    others = [index for index in range(40) if index not in (3, 5)]
    torch.testing.assert_close(values[others], wanted[others], **EXACT)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_input_stays_as_it_is(compare):
    clean, noisy, present = tied_rows(seed=0), tied_rows(seed=1), some_present()
    before = [each.clone() for each in (clean, noisy, present)]
    compare(clean, noisy, present=present)
    torch.testing.assert_close([clean, noisy, present], before, **EXACT)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_pickles_and_has_a_stable_repr(compare):
    again = pickle.loads(pickle.dumps(compare))
    assert again == compare
    assert repr(again) == repr(compare)
    assert " at 0x" not in repr(compare)
