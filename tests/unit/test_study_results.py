"""From rows on the disk to arrays: against plain loops, and refused where rows are not as expected."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_camrobust.compare.rbo import RankBiasedOverlap
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.plan import make_plan
from lightning_camrobust.study.conditions import differing, study_conditions
from lightning_camrobust.study.grid import StudyGrid
from lightning_camrobust.study.job import note_seconds, sum_seconds
from lightning_camrobust.study.manifest import differences, new_manifest, write_manifest
from lightning_camrobust.study.measuring import chance_levels, study_noises
from lightning_camrobust.study.outcomes import Noise
from lightning_camrobust.study.results import load_manifest, load_outcomes
from lightning_camrobust.study.rows import ImageValues, make_rows, place_columns, row_schema
from lightning_camrobust.study.shards import Shard, cut_into_shards, merge_shards, write_shard

METHODS = ["gradcam", "eigencam"]
NOISES = [Noise("fog", 1), Noise("fog", 5), Noise("elastic", 3, "geometric")]
READINGS = ["p=0.9", "target=original"]
LAYERS = {"b": ["layer4", "layer3"], "a/..": ["."]}
COUNT, SIZE = 5, 2


def random_values(generator, shard):
    count = shard.stop - shard.start
    similarity = generator.random((3, count, len(NOISES), len(METHODS)))
    similarity[generator.random(similarity.shape) < 0.2] = np.nan
    return ImageValues(
        images=[f"{index}.png" for index in range(shard.start, shard.stop)],
        labels=generator.integers(-1, 9, count),
        clean_classes=generator.integers(0, 9, count),
        noisy_classes=generator.integers(0, 9, (count, len(NOISES))),
        same=generator.random((count, len(NOISES))) < 0.5,
        chance=np.where(generator.random(count) < 0.3, np.nan, generator.random(count)),
        similarity=similarity[0],
        readings=dict(zip(READINGS, similarity[1:], strict=True)),
    )


@pytest.fixture
def written(tmp_path):
    """A study of random values; returns its folder and what every row must hold."""
    settings = {
        "methods": METHODS,
        "noises": [[noise.perturbation, noise.severity, noise.kind] for noise in NOISES],
        "readings": READINGS,
        "models": {model: {"target_layers": layers} for model, layers in LAYERS.items()},
        "data": {"name": "pets", "num_images": COUNT},
        "shard_size": SIZE,
    }
    manifest, generator, truth = new_manifest(settings), np.random.default_rng(0), {}
    schema = row_schema(READINGS, digest=manifest["digest"])
    shards = cut_into_shards(LAYERS, num_images=COUNT, shard_size=SIZE)
    for shard in shards:
        values = random_values(generator, shard)
        place = place_columns(shard.model, shard.target_layer, range(shard.start, shard.stop), NOISES, METHODS)
        write_shard(tmp_path, shard, make_rows(place, values, schema))
        for row in range(shard.stop - shard.start):
            truth[shard.model, shard.target_layer, shard.start + row] = values, row
    merge_shards(tmp_path, shards, schema=schema)
    write_manifest(tmp_path, manifest)
    return tmp_path, truth


def test_every_value_comes_back_in_its_place(written):
    folder, truth = written
    found = load_outcomes(folder)
    assert [(each.model, each.target_layer) for each in found] == [("b", "layer4"), ("b", "layer3"), ("a/..", ".")]
    for each in found:
        assert (each.data, each.methods, each.noises) == ("pets", tuple(METHODS), tuple(NOISES))
        assert each.images == tuple(f"{index}.png" for index in range(COUNT))
        assert (each.labels.dtype, each.noisy_classes.dtype, each.same.dtype) == (np.int64, np.int64, np.bool_)
        for index in range(COUNT):
            values, row = truth[each.model, each.target_layer, index]
            assert each.labels[index] == values.labels[row]
            assert each.clean_classes[index] == values.clean_classes[row]
            np.testing.assert_array_equal(each.chance[index], values.chance[row])
            for noise in range(len(NOISES)):
                assert each.noisy_classes[index, noise] == values.noisy_classes[row, noise]
                assert each.same[index, noise] == values.same[row, noise]
                for method in range(len(METHODS)):
                    np.testing.assert_array_equal(
                        each.similarity[index, method, noise], values.similarity[row, noise, method]
                    )
                    for label in READINGS:
                        np.testing.assert_array_equal(
                            each.readings[label][index, method, noise], values.readings[label][row, noise, method]
                        )


def test_conditions_come_from_the_manifest(written):
    folder, _ = written
    assert load_outcomes(folder)[0].conditions == {"num_images": str(COUNT)}  # all that this bare manifest says
    grid = StudyGrid(methods=["gradcam", "rise"], perturbations="fog", reduction="max", seed=3).describe()
    settings = {"grid": grid, "data": {"name": "pets", "num_images": 9, "fingerprint": "ab"}, "precision": "32-true"}
    found = study_conditions(new_manifest(settings)["settings"], target_layer="layer4")
    assert {name: value for name, value in found.items() if not value.startswith("{")} == {
        "data": "ab", "num_images": "9", "reduction": "max", "target": "predicted", "severity_column": "auto",
        "align_geometric": "false", "seed": "3", "precision": "32-true",
    }  # fmt: skip
    labels = [f"reading {label}" for label in grid["readings"]]
    members = ["similarity", "segmenter", "method gradcam", "method rise", "perturbation fog", *labels]
    assert [name for name, value in found.items() if value.startswith("{")] == members
    assert json.loads(found["method rise"]) == grid["methods"]["rise"]
    assert study_conditions(settings, target_layer="layer3, layer4")["layer_fusion"] == "mean"


def test_long_conditions_are_cut_to_where_they_differ():
    first, second = ({"seed": "x" * 200 + end + "y" * 200} for end in "ab")
    (text,) = differing(first, second, ["seed", "target"])
    assert len(text) < 200
    assert "xa" in text
    assert "xb" in text
    assert differing({"seed": "a"}, {"seed": "ab"}, ["seed"]) == ["the seed ('a' in the first, 'ab' in the second)"]


def test_rows_are_named_and_typed_as_documented(written):
    folder, truth = written
    table = pq.read_table(folder / "results.parquet")
    text, real = pa.dictionary(pa.int32(), pa.string()), pa.float64()
    assert [(field.name, field.type) for field in table.schema] == [
        ("model", text), ("target_layer", text), ("index", pa.int32()), ("image", text), ("label", pa.int32()),
        ("perturbation", text), ("severity", pa.int8()), ("kind", text), ("method", text),
        ("clean_class", pa.int32()), ("noisy_class", pa.int32()), ("same_class", pa.bool_()), ("chance", real),
        ("similarity", real), ("similarity[p=0.9]", real), ("similarity[target=original]", real),
    ]  # fmt: skip
    missing = sum(int(np.isnan(values.similarity[row]).sum()) for values, row in truth.values())
    assert table["similarity"].null_count == missing > 0
    for row in table.to_pandas().itertuples():
        values, position = truth[row.model, row.target_layer, row.index]
        noise = NOISES.index(Noise(row.perturbation, row.severity, row.kind))
        expected = values.similarity[position, noise, METHODS.index(row.method)]
        np.testing.assert_array_equal(row.similarity, expected)
        assert row.image == f"{row.index}.png"


def shuffle(table):
    return table.take([1, 0, *range(2, len(table))])


def cut(table):
    return table.slice(0, len(table) - 1)


def rename(table):
    position = table.schema.get_field_index("method")
    names = ["eigencam" if name == "gradcam" else "gradcam" for name in table["method"].to_pylist()]
    column = pa.array(names).dictionary_encode().cast(table.schema.field("method").type)
    return table.set_column(position, table.schema.field("method"), column)


@pytest.mark.parametrize("change", [shuffle, cut, rename])
def test_rows_that_are_not_where_they_belong_are_refused(written, change):
    folder, _ = written
    path = folder / "results.parquet"
    groups = [change(group) if number == 0 else group for number, group in enumerate(_groups(path))]
    with pq.ParquetWriter(path, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    with pytest.raises(ArgumentError, match="out of order"):
        load_outcomes(folder)


def _groups(path):
    file = pq.ParquetFile(path)
    return [file.read_row_group(number) for number in range(file.num_row_groups)]


def test_results_of_another_study_are_refused(written):
    folder, _ = written
    path = folder / "results.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"camrobust_study": b"other"}), path)
    with pytest.raises(ArgumentError, match="other settings than the manifest"):
        load_outcomes(folder)
    pq.write_table(table, path)  # one row group in place of nine
    with pytest.raises(ArgumentError, match="row groups"):
        load_outcomes(folder)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArgumentError, match="Delete it and run the same command again"):
        load_outcomes(folder)


def test_an_unfinished_study_says_what_is_missing(written):
    folder, _ = written
    (folder / "results.parquet").unlink()
    with pytest.raises(ArgumentError, match=r"0 of 9 shards are missing. Run the same command again"):
        load_outcomes(folder)
    for shard in (Shard("b", "layer3", 1, 2, 4), Shard("a/..", ".", 2, 4, 5)):
        shard.path(folder).unlink()
    with pytest.raises(ArgumentError, match="2 of 9 shards are missing"):
        load_outcomes(folder)


def test_no_study_at_all(tmp_path):
    for read in (load_manifest, load_outcomes):
        with pytest.raises(ArgumentError, match="holds no study"):
            read(tmp_path)


def test_names_of_files_stay_in_the_folder_and_differ():
    names = ["a", "A/b", "A%2Fb", "..", ".", "a.b", "ä", "a, b", "%2E"]
    paths = {Shard(name, name, 0, 0, 1).path(Path("root")) for name in names}
    assert len(paths) == len(names)
    assert all(len(path.parts) == 5 and ".." not in path.parts and "." not in path.parts for path in paths)


def test_shards_cover_every_image_once():
    for count, size in [(7, 3), (6, 3), (1, 32), (5, 1)]:
        shards = cut_into_shards({"a": ["x", "y"]}, num_images=count, shard_size=size)
        for layer in "xy":
            covered = [
                index for shard in shards if shard.target_layer == layer for index in range(shard.start, shard.stop)
            ]
            assert covered == list(range(count))


def test_chance_is_the_mean_overlap_of_all_orders():
    for p, length in [(0.2, 4), (0.9, 6), (0.5, 1)]:
        values = []
        for order in itertools.permutations(range(length)):
            shares = [len(set(order[:depth]) & set(range(depth))) / depth for depth in range(1, length + 1)]
            beyond = p**length  # the weight of all depths at which both tops hold everything
            values.append((1 - p) * sum(share * p**depth for depth, share in enumerate(shares)) + beyond)
        (level,) = chance_levels(make_plan(similarity=RankBiasedOverlap(p=p)), np.array([length]))
        assert level == pytest.approx(np.mean(values), abs=1e-12)
    assert np.isnan(chance_levels(make_plan(similarity="kendall"), np.array([3]))).all()
    assert np.isnan(chance_levels(make_plan(), np.array([0]))).all()


@pytest.mark.parametrize("reduction", ["sum", "max"])
def test_chance_is_unknown_where_rankings_follow_the_sizes_of_segments(reduction):
    assert np.isnan(chance_levels(make_plan(reduction=reduction), np.array([3, 25]))).all()


def test_kinds_of_noise():
    names = ["fog", "elastic", "pgd", "gradient_noise"]
    assert [noise.kind for noise in study_noises(make_plan(perturbations=names, severities=2))] == [
        "photometric", "geometric", "attack", "gradient",
    ]  # fmt: skip


def test_seconds_of_lines_that_are_whole(tmp_path):
    assert sum_seconds(tmp_path) == {}
    shard = Shard("a", "x", 0, 0, 1)
    note_seconds(tmp_path, shard, 1.5)
    with (tmp_path / "seconds.jsonl").open("a") as file:
        file.write('\n["a", "x", 1, 100.')
    note_seconds(tmp_path, shard, 2.25)
    note_seconds(tmp_path, Shard("a", "y", 0, 0, 1), 1.0)
    assert sum_seconds(tmp_path) == {"a": {"x": 3.75, "y": 1.0}}


def test_differences_are_named_in_the_deepest_place():
    before = {"grid": {"seed": 0, "methods": {"gradcam": {}, "eigencam": {}}}, "size": [1, 2]}
    now = json.loads(json.dumps(before))
    assert differences(before, now) == []
    now["grid"]["methods"].pop("eigencam")
    now["size"].append(3)
    now["new"] = True
    assert differences(before, now) == [
        "grid.methods.eigencam was {} and is not there", "size was [1, 2] and is [1, 2, 3]",
        "new was not there and is true",
    ]  # fmt: skip
