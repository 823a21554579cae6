"""What every similarity promises, those of score rows and those of maps each in their own way."""

import dataclasses
import math
import pickle
from collections import Counter
from typing import NamedTuple

import pytest
import torch

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError
from tests.contracts.specimens import specimens, unfinished

SIMILARITIES = specimens("compare")
OF_MAPS = [each for each in SIMILARITIES if getattr(each, "of_maps", False)]
OF_ROWS = [each for each in SIMILARITIES if each not in OF_MAPS]
OF_RANKS = [each for each in OF_ROWS if each.of_ranks]
BOUNDED = [each for each in SIMILARITIES if each.lowest == 0]
SIGNED = [each for each in SIMILARITIES if each.lowest < 0]
# The overlap itself has a value for equal scores, by its tie rule, and for a lone segment.
NEED_AN_ORDER = [each for each in OF_ROWS if not isinstance(each, RankBiasedOverlap)]
EXACT = {"rtol": 0, "atol": 0}
LIKE_ITSELF = {"rtol": 0, "atol": 1e-12}


def distinct_rows(rows=40, segments=12, seed=0):
    """Score rows without a tie."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(segments, generator=generator) for _ in range(rows)]).double()


def tied_rows(rows=40, segments=12, seed=0):
    """Score rows with many ties, none of them all equal wherever the first two segments are present."""
    scores = torch.randint(0, 4, (rows, segments), generator=torch.Generator().manual_seed(seed)).double()
    scores[:, 1] = torch.where(scores[:, 0] == scores[:, 1], 3 - scores[:, 0], scores[:, 1])
    return scores


def some_present(rows=40, segments=12, seed=7):
    """Half of the segments, at least two a row."""
    present = torch.rand(rows, segments, generator=torch.Generator().manual_seed(seed)) < 0.5
    present[:, :2] = True
    return present


def many_present(rows=40, segments=12):
    """All segments but one or two a row, so that no top reaches down to the bottom."""
    present = torch.ones(rows, segments, dtype=torch.bool)
    present[torch.arange(rows), torch.arange(rows) % segments] = False
    present[torch.arange(0, rows, 2), (torch.arange(0, rows, 2) + 5) % segments] = False
    return present


def sparse_maps(count=40, size=7, seed=0):
    """Maps as ReLU leaves them: zeros and values of a small unit."""
    return torch.randn(count, size, size, generator=torch.Generator().manual_seed(seed)).relu().double() / 100


def black_and_white(count=40, size=7, seed=0):
    return (torch.rand(count, size, size, generator=torch.Generator().manual_seed(seed)) < 0.5).double()


class Pair(NamedTuple):
    """What a similarity gets; ``present`` is None for maps."""

    clean: torch.Tensor
    noisy: torch.Tensor
    present: torch.Tensor | None

    def to(self, dtype):
        return self._replace(clean=self.clean.to(dtype), noisy=self.noisy.to(dtype))

    def one(self, index):
        return Pair(*(None if each is None else each[index : index + 1] for each in self))

    def tensors(self):
        return [each for each in self if each is not None]


def call(compare, pair):
    if pair.present is None:
        return compare(pair.clean, pair.noisy)
    return compare(pair.clean, pair.noisy, present=pair.present)


def pairs_for(compare):
    """Unrelated pairs of what it compares, 40 of each."""
    if compare in OF_MAPS:
        return [
            Pair(make(seed=0, **size), make(seed=1, **size), None)
            for make, size in ((sparse_maps, {}), (sparse_maps, {"size": 33}), (black_and_white, {}))
        ]
    return [Pair(rows(seed=0), rows(seed=1), some_present()) for rows in (distinct_rows, tied_rows)]


def opposites_for(compare):
    """Pairs that run against each other."""
    if compare in OF_MAPS:
        maps = black_and_white()
        return Pair(maps, 1 - maps, None)
    return Pair(distinct_rows(), -distinct_rows(), many_present())


def test_every_file_shows_examples():
    assert SIMILARITIES
    assert unfinished("compare") == []


@pytest.mark.parametrize("kind", [OF_MAPS, OF_ROWS, OF_RANKS, BOUNDED, SIGNED, NEED_AN_ORDER])
def test_every_kind_has_members(kind):
    assert kind


def test_examples_tell_themselves_apart():
    assert [name for name, count in Counter(map(repr, SIMILARITIES)).items() if count > 1] == []


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_says_what_it_compares_and_how_low_it_goes(compare):
    assert isinstance(compare.lowest, float)
    assert compare.lowest in (0.0, -1.0, -math.inf)
    assert compare.of_maps is True if compare in OF_MAPS else isinstance(compare.of_ranks, bool)
    # They tell of the kind: nobody can set them for one instance.
    assert not {"lowest", "of_maps", "of_ranks"} & {each.name for each in dataclasses.fields(compare)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_one_number_an_image_in_its_range(compare, dtype):
    for pair in [*pairs_for(compare), opposites_for(compare)]:
        values = call(compare, pair.to(dtype))
        assert (values.shape, values.dtype) == ((40,), torch.float64)
        assert ((values >= compare.lowest) & (values <= 1)).all()
    # A constant would lie in the range as well.
    assert torch.cat([call(compare, pair.to(dtype)) for pair in pairs_for(compare)]).unique().numel() > 5


@pytest.mark.parametrize("compare", SIGNED, ids=repr)
def test_a_signed_one_goes_below_0_for_opposites(compare):
    assert (call(compare, opposites_for(compare)) < 0).any()


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_full_similarity_is_1_and_opposites_have_less(compare):
    for pair in pairs_for(compare):
        # Expected values over random tie breaking are below 1 even for a row and itself.
        if getattr(compare, "ties", None) == "a" and pair.clean.unique().numel() < 12:
            continue
        same = call(compare, pair._replace(noisy=pair.clean))
        torch.testing.assert_close(same, torch.ones(40).double(), **LIKE_ITSELF)
    assert (call(compare, opposites_for(compare)) < 0.9).all()


@pytest.mark.parametrize("p", [0.2, 0.9])
@pytest.mark.parametrize("ties", ["b", "w", "stable"])
def test_a_row_with_ties_is_fully_similar_to_itself(ties, p):
    rows = tied_rows()
    values = RankBiasedOverlap(p=p, ties=ties)(rows, rows, present=some_present())
    torch.testing.assert_close(values, torch.ones(40).double(), **LIKE_ITSELF)


@pytest.mark.parametrize("compare", OF_RANKS, ids=repr)
def test_only_the_order_counts(compare):
    for clean, noisy, present in pairs_for(compare):
        stretched = compare(clean.exp(), 1e-3 * noisy - 5, present=present)
        torch.testing.assert_close(stretched, compare(clean, noisy, present=present), **EXACT)


@pytest.mark.parametrize("scale", [2.0**-20, 8.0, 1e-170, 1e170])
@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_the_unit_does_not_count(compare, scale):
    for pair in pairs_for(compare):
        scaled = call(compare, pair._replace(clean=scale * pair.clean, noisy=scale * pair.noisy))
        torch.testing.assert_close(scaled, call(compare, pair), **LIKE_ITSELF)


@pytest.mark.parametrize("other", [1e9, -1e9, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", OF_ROWS, ids=repr)
def test_absent_segments_have_no_say(compare, rows, other):
    clean, noisy, present = rows(seed=0), rows(seed=1), some_present()
    assert not present.all()
    wanted = compare(clean, noisy, present=present)
    changed = compare(clean.masked_fill(~present, other), noisy.masked_fill(~present, -other), present=present)
    torch.testing.assert_close(changed, wanted, **EXACT)


@pytest.mark.parametrize("rows", [distinct_rows, tied_rows])
@pytest.mark.parametrize("compare", OF_ROWS, ids=repr)
def test_a_row_counts_the_same_without_its_absent_segments(compare, rows):
    clean, noisy, present = rows(seed=0), rows(seed=1), some_present()
    padded = compare(clean, noisy, present=present)
    for index, here in enumerate(present):
        short = [row[index, here][None] for row in (clean, noisy)]
        bare = compare(*short, present=torch.ones_like(short[0], dtype=torch.bool))
        torch.testing.assert_close(bare, padded[index : index + 1], **LIKE_ITSELF)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_images_do_not_sway_each_other(compare):
    for pair in pairs_for(compare):
        alone = [call(compare, pair.one(index)) for index in range(40)]
        torch.testing.assert_close(call(compare, pair), torch.cat(alone), rtol=0, atol=1e-14)


@pytest.mark.parametrize("compare", OF_ROWS, ids=repr)
def test_a_broken_row_keeps_its_trouble_to_itself(compare):
    clean, noisy, present = distinct_rows(seed=0), distinct_rows(seed=1), some_present()
    wanted = compare(clean, noisy, present=present)
    broken, also_broken, missing = clean.clone(), noisy.clone(), present.clone()
    broken[3, 0] = torch.nan
    also_broken[4, 1] = torch.nan
    missing[5] = False
    values = compare(broken, also_broken, present=missing)
    assert values[3:6].isnan().all()
    others = [index for index in range(40) if index not in (3, 4, 5)]
    torch.testing.assert_close(values[others], wanted[others], **EXACT)


@pytest.mark.parametrize("compare", NEED_AN_ORDER, ids=repr)
def test_where_there_is_no_order_there_is_no_value(compare):
    clean, noisy, present = distinct_rows(seed=0), distinct_rows(seed=1), some_present()
    wanted = compare(clean, noisy, present=present)
    flat, also_flat, lone = clean.clone(), noisy.clone(), present.clone()
    flat[2] = 5
    also_flat[3] = -torch.inf
    flat[4], also_flat[4] = 0, 0
    # Equal among those present, though not at an absent segment.
    flat[6] = torch.where(present[6], 1, 2)
    lone[8] = False
    lone[8, 3] = True
    values = compare(flat, also_flat, present=lone)
    undefined = [2, 3, 4, 6, 8]
    assert values[undefined].isnan().all()
    others = [index for index in range(40) if index not in undefined]
    torch.testing.assert_close(values[others], wanted[others], **EXACT)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("compare", OF_MAPS, ids=repr)
def test_a_broken_map_keeps_its_trouble_to_itself(compare, bad):
    for clean, noisy, _ in pairs_for(compare):
        wanted = compare(clean, noisy)
        broken, also_broken = clean.clone(), noisy.clone()
        broken[3, 0, 0] = bad
        also_broken[4, -1, 2] = bad
        broken[5] = bad
        also_broken[6] = bad
        broken[7] = 0
        broken[8], also_broken[8] = 0, 0
        values = compare(broken, also_broken)
        assert values[3:9].isnan().all()
        others = [index for index in range(40) if index not in range(3, 9)]
        torch.testing.assert_close(values[others], wanted[others], **EXACT)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_an_empty_batch_gives_no_numbers(compare):
    for pair in pairs_for(compare):
        values = call(compare, Pair(*(None if each is None else each[:0] for each in pair)))
        assert (values.shape, values.dtype) == ((0,), torch.float64)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_pairs_that_do_not_fit_are_refused(compare):
    clean, noisy, present = pairs_for(compare)[0]
    with pytest.raises(ArgumentError, match="of equal shape"):
        call(compare, Pair(clean, noisy[:1], present))
    with pytest.raises(ArgumentError, match="of equal shape"):
        call(compare, Pair(clean[..., None], noisy[..., None], present))


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_input_stays_as_it_is(compare):
    for pair in pairs_for(compare):
        before = [each.clone() for each in pair.tensors()]
        call(compare, pair)
        torch.testing.assert_close(pair.tensors(), before, **EXACT)


@pytest.mark.parametrize("compare", SIMILARITIES, ids=repr)
def test_pickles_and_has_a_stable_repr(compare):
    again = pickle.loads(pickle.dumps(compare))
    assert again == compare
    assert hash(again) == hash(compare)
    assert repr(again) == repr(compare)
    assert " at 0x" not in repr(compare)
