"""Studies through the Trainer: killed, resumed, shared among processes, refused: the same numbers or an error."""

import errno
import functools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from lightning import pytorch as pl
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_camrobust.errors import ArgumentError, ModelError, UnknownNameError
from lightning_camrobust.measure import measure_stability
from lightning_camrobust.study import running
from lightning_camrobust.study.manifest import digest_of
from lightning_camrobust.study.measuring import find_layers, load_model, measure_images
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.prober import ShardProber
from lightning_camrobust.study.progress import StudyProgress
from lightning_camrobust.study.results import load_manifest, load_outcomes
from lightning_camrobust.study.source import open_images
from lightning_camrobust.study.storage import StudyFolderError
from tests.integration.study_run import RandomImages, make_grid, study, tiny_model, tiny_network

ROOT = Path(__file__).parents[2]
KEY = ["model", "target_layer", "index", "perturbation", "severity", "method"]


def script(what, folder, **settings):
    command = [sys.executable, "-m", "tests.integration.study_run", what, str(folder), json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study") / "whole")


@pytest.fixture
def copied(whole, tmp_path):
    """A finished study that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "copied"))


def results(folder):
    return (Path(folder) / "results.parquet").read_bytes()


def shard_files(folder):
    return sorted(Path(folder).glob("shards/*/*/*.parquet"))


def test_killed_six_times_and_resumed_gives_the_bytes_of_an_uninterrupted_run(tmp_path):
    told = json.loads(script("kill", tmp_path, count=21, seed=0).splitlines()[-1])
    assert told["half written"] == signal.SIGKILL
    assert told["unfinished"] == 1  # the kill did leave half a file
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    frame = pd.read_parquet(tmp_path / "killed" / "results.parquet")
    assert not frame.duplicated(KEY).any()
    assert len(frame) == 2 * 2 * 21 * 4 * 2
    assert not list((tmp_path / "killed").rglob("*.tmp"))
    sessions = load_manifest(tmp_path / "killed")["sessions"]
    assert len(sessions) >= 2
    assert sessions[-1]["finished"] is not None


@pytest.mark.parametrize(("strategy", "present"), [("ddp_spawn", 0), ("ddp", 11)])
def test_two_processes_equal_one(whole, copied, strategy, present):
    for file in shard_files(copied)[present:]:  # with 11 of 12 there, one process has nothing to do
        file.unlink()
    (copied / "results.parquet").unlink()
    script("study", copied, trainer={"accelerator": "cpu", "devices": 2, "strategy": strategy})
    assert results(copied) == results(whole)
    assert [file.read_bytes() for file in shard_files(copied)] == [file.read_bytes() for file in shard_files(whole)]
    assert load_manifest(copied)["sessions"][-1]["processes"] == 2
    lines = (copied / "seconds.jsonl").read_text().split()
    assert len("".join(lines).split("][")) == 12 + 12 - present  # no shard was measured by both


def test_rows_are_what_measure_stability_says_of_each_image(whole):
    frame = pd.read_parquet(whole / "results.parquet")
    images = RandomImages()
    for (model, layer, index), rows in frame.groupby(["model", "target_layer", "index"], observed=True):
        seed = {"tiny/a": 0, "b": 1}[model]
        network, image = tiny_network(seed).eval(), images[index]
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
        inputs = ((image.pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]
        alone = measure_stability(
            network, inputs, ("gradcam", "eigencam"), ("gaussian_noise", "contrast"), severities=(2, 5),
            target_layer=layer, segmenter="grid", mean=mean, std=std,
        )  # fmt: skip
        assert list(zip(rows["method"], rows["perturbation"], rows["severity"], strict=True)) == alone.cells
        expected = torch.where(alone.comparison.rankable, alone.comparison.similarity, torch.nan)[0].numpy()
        np.testing.assert_allclose(rows["similarity"].to_numpy(), expected, rtol=0, atol=1e-5)
        assert rows["same_class"].tolist() == alone.comparison.same_class[0].tolist()
        assert set(rows["clean_class"]) == {int(network(inputs).argmax())}
        assert ((rows["clean_class"] == rows["noisy_class"]) == rows["same_class"]).all()
        assert set(rows["label"]) == {image.label}
        assert set(rows["image"]) == {image.name}
        assert set(rows["kind"]) == {"photometric"}
    assert 0 < frame["same_class"].mean() < 1  # both sets are there
    assert 0 < frame["similarity"].isna().sum() < len(frame) / 4  # and maps that cannot be ranked


@pytest.mark.parametrize("sizes", [{"shard_size": 7, "chunk_size": 7}, {"shard_size": 1, "chunk_size": 1}])
def test_numbers_do_not_depend_on_shards(whole, tmp_path, sizes):
    frame, other = (pd.read_parquet(each / "results.parquet") for each in (whole, study(tmp_path, **sizes)))
    np.testing.assert_allclose(frame.pop("similarity"), other.pop("similarity"), rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(frame.astype({"image": str}), other.astype({"image": str}))


def test_reading_in_other_processes_changes_nothing(whole, tmp_path):
    assert results(study(tmp_path, num_workers=1)) == results(whole)


def test_facts_for_readers_stand_beside_the_settings(copied, whole):
    manifest = json.loads((copied / "manifest.json").read_text())
    facts = manifest["facts"]
    assert facts["image_size"] == [3, 16, 16]
    # The columns for small images, as published.
    assert facts["levels"] == {"gaussian_noise": {"2": 0.06, "5": 0.10}, "contrast": {"2": 0.5, "5": 0.15}}
    size = 3 * 4 * 9 + 4 + 4 * 4 * 9 + 4 + 4 * 25 * 3 + 3
    assert facts["networks"] == {name: {"class": "Sequential", "parameters": size} for name in ("tiny/a", "b")}
    assert digest_of(manifest["settings"]) == manifest["digest"]
    # A study from before they were written down goes on, and gets them.
    del manifest["facts"]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    study(copied)
    assert json.loads((copied / "manifest.json").read_text())["facts"] == facts


def test_running_a_finished_study_again_measures_nothing(copied, whole, monkeypatch):
    monkeypatch.setattr(running, "measure_images", None)
    monkeypatch.setattr(ShardProber, "predict_step", None)
    monkeypatch.setattr(running, "merge_shards", None)
    study(copied, models={"b": tiny_model(1), "tiny/a": tiny_model()})  # nor does the order of models matter
    assert results(copied) == results(whole)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"grid": make_grid(seed=1)}, "grid.seed was 0 and is 1"),
        ({"grid": make_grid(severities=(2, 4))}, "severities"),
        ({"grid": make_grid(segmenter="slic")}, "segmenter"),
        ({"models": {"tiny/a": tiny_model(2), "b": tiny_model(1)}}, "models.tiny/a.weights"),
        ({"models": {"tiny/a": tiny_model()}}, "models.b"),
        ({"models": {"tiny/a": tiny_model(mean=None, std=None), "b": tiny_model(1)}}, "models.tiny/a.mean"),
        ({"models": {"tiny/a": tiny_model(target_layers=("3", "0")), "b": tiny_model(1)}}, "target_layers"),
        ({"images": RandomImages(seed=1)}, "data.fingerprint"),
        ({"shard_size": 4}, "shard_size was 3 and is 4"),
        ({"trainer": {"accelerator": "cpu", "precision": "bf16-mixed"}}, "precision"),
    ],
)
def test_a_folder_is_for_one_study_only(whole, settings, named):
    before = {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()}
    with pytest.raises(ArgumentError, match=f"other settings.*{named}.*overwrite=True"):
        study(whole, **settings)
    assert {file: file.read_bytes() for file in whole.rglob("*") if file.is_file()} == before


def test_overwrite_starts_anew_but_only_if_it_can(copied, whole):
    shutil.copy(shard_files(copied)[0], copied / "shards" / "mine.parquet")
    with pytest.raises(UnknownNameError, match="no layer named '9'"):
        study(copied, models={"c": tiny_model(target_layers=("9",))}, overwrite=True)
    assert results(copied) == results(whole)
    study(copied, models={"c": tiny_model(2)}, overwrite=True)
    assert {each.model for each in load_outcomes(copied)} == {"c"}
    assert [file.parts[-3] for file in shard_files(copied)] == ["c"] * 6
    assert (copied / "shards" / "mine.parquet").exists()
    assert len(load_manifest(copied)["sessions"]) == 1


def truncate(files):
    os.truncate(files[2], os.path.getsize(files[2]) // 2)


def flip_a_byte(files):
    """Change one number a little, in a file that can be read as well as before."""
    path, file = files[2], pq.ParquetFile(files[2])
    column = file.metadata.row_group(0).column(file.schema_arrow.get_field_index("similarity"))
    content, number = path.read_bytes(), next(filter(None, pq.read_table(path)["similarity"].to_pylist()))
    place = content.index(struct.pack("<d", number), column.dictionary_page_offset)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert number not in pq.read_table(path)["similarity"].to_pylist()


def take_other_images(files):
    shutil.copy(files[1], files[0])


def take_another_layer(files):
    shutil.copy(files[3], files[0])


def take_another_model(files):
    shutil.copy(files[6], files[0])


def delete(files):
    files[2].unlink()


def lose_rows(files):
    rows = pq.read_table(files[2])
    pq.write_table(rows.slice(1), files[2])


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_byte,
        take_other_images,
        take_another_layer,
        take_another_model,
        lose_rows,
        delete,
    ],
)
def test_a_damaged_shard_is_measured_again(copied, whole, damage):
    files = shard_files(copied)
    damage(files)
    for file in (files[4], copied / "manifest.json", copied / "results.parquet"):
        Path(f"{file}.123.tmp").write_bytes(b"left by a killed run")
    (copied / "mine.tmp").write_bytes(b"the user's own")
    (copied / "results.parquet").unlink()
    with pytest.raises(ArgumentError, match="1 of 12 shards are missing. Run the same command again"):
        load_outcomes(copied)
    study(copied)
    assert results(copied) == results(whole)
    assert [each.name for each in copied.rglob("*.tmp")] == ["mine.tmp"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_earlier_shards(whole, tmp_path, monkeypatch, code):
    write, calls = pq.write_table, []

    def full(rows, path, **settings):
        calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"half")
            raise OSError(code, os.strerror(code))
        write(rows, path, **settings)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(StudyFolderError, match="the disk is full.*run the same again"):
        study(tmp_path)
    monkeypatch.setattr(pq, "write_table", write)
    assert len(shard_files(tmp_path)) == 2
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(ArgumentError, match="10 of 12 shards are missing"):
        load_outcomes(tmp_path)
    study(tmp_path)
    assert results(tmp_path) == results(whole)


def test_a_full_disk_while_merging_leaves_the_former_results(copied, whole, monkeypatch):
    def full(writer, rows, **settings):
        raise OSError(errno.ENOSPC, "No space left on device")

    shard_files(copied)[0].unlink()
    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    monkeypatch.setattr(pq, "write_table", lambda rows, path, **settings: shutil.copy(shard_files(whole)[0], path))
    with pytest.raises(StudyFolderError, match="the disk is full"):
        study(copied)
    assert results(copied) == results(whole)


def test_a_read_only_folder_is_found_before_anything_is_measured(copied, whole, monkeypatch):
    def refuse(**settings):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refuse)
    monkeypatch.setattr(running, "load_model", None)
    with pytest.raises(StudyFolderError, match="read-only.*choose another folder"):
        study(copied)
    assert results(copied) == results(whole)


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(ArgumentError, match="is a file"):
            study(place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("text", ["", '{"settings": {"gr', "[]", "{}", None])
def test_a_corrupt_manifest(copied, whole, text):
    path = copied / "manifest.json"
    path.write_text(path.read_text().replace('"shard_size": 3', '"shard_size": 4') if text is None else text)
    for read in (study, load_manifest, load_outcomes):
        with pytest.raises(ArgumentError, match=r"manifest.json cannot be used.*overwrite=True"):
            read(copied)
    study(copied, overwrite=True)
    assert results(copied) == results(whole)


def test_only_one_run_at_a_time(copied):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, copied / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(ArgumentError, match="another process is measuring"):
            study(copied)
        other.communicate(b"\n")
    study(copied)


class LabelledImages(RandomImages):
    """Knows all labels without reading an image."""

    def known_labels(self):
        return (-1, 1, 2, 0, 1, 2, 0)


class GreyImages(RandomImages):
    """Of one channel."""

    def __getitem__(self, index):
        image = super().__getitem__(index)
        return image._replace(pixels=image.pixels[:1])


class Interrupted(RandomImages):
    """Ctrl-C, or SIGTERM, comes while the fifth image is read for the second time."""

    def __getitem__(self, index):
        if index == 4 and self.name == "random squares" and signals:
            os.kill(os.getpid(), signals.pop())
        return super().__getitem__(index)


signals = []


@pytest.fixture
def listening():
    """Listen to Ctrl-C: a suite that runs in the background may have been told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize(
    ("number", "error", "text"),
    [
        (signal.SIGINT, KeyboardInterrupt, "1 of 12 shards are measured. Run the same"),
        (signal.SIGTERM, SystemExit, "143"),
    ],
)
def test_stopped_by_a_signal(whole, tmp_path, number, error, text):
    signals.append(number)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error, match=text):
        study(tmp_path, images=Interrupted())
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_manifest(tmp_path)["sessions"][-1]["finished"] is None
    study(tmp_path)
    assert results(tmp_path) == results(whole)


def test_seconds_add_up_over_sessions(whole, copied):
    before = load_manifest(copied)["seconds"]
    assert {model: set(layers) for model, layers in before.items()} == {"tiny/a": {"0", "3"}, "b": {"0", "3"}}
    shard_files(copied)[-1].unlink()  # of "tiny/a", layer "3"
    with (copied / "seconds.jsonl").open("a") as file:
        file.write('\n["b", "0", 1, 10')  # a line that a kill cut short
    study(copied)
    after = load_manifest(copied)
    assert after["seconds"]["tiny/a"]["3"] > before["tiny/a"]["3"]
    assert after["seconds"]["b"] == before["b"]
    assert len(after["sessions"]) == 2
    for session in after["sessions"]:
        assert session["versions"]["torch"] == torch.__version__.split("+")[0]
        assert session["finished"] >= session["started"]
        assert session["command_line"] == sys.argv


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"models": {}}, ArgumentError, "`models` must hold at least one"),
        ({"count": 0}, ArgumentError, "`images` must hold at least one"),
        ({"shard_size": 0}, ArgumentError, "`shard_size` must be a whole number of at least 1, got 0"),
        ({"chunk_size": True}, ArgumentError, "`chunk_size`"),
        ({"num_workers": -1}, ArgumentError, "`num_workers` must be a whole number of at least 0"),
        ({"trainer": {"logger": True}}, ArgumentError, "`trainer` may hold accelerator.*got 'logger'"),
        ({"trainer": {"accelerator": "abacus"}}, ArgumentError, "Lightning's Trainer does not accept accelerator='a"),
        ({"trainer": {"precision": "17"}}, ArgumentError, "does not accept precision='17' here. It says: "),
        ({"trainer": {"strategy": "foo"}}, ArgumentError, "does not accept strategy='foo' here"),
        ({"models": {"": tiny_model()}}, ArgumentError, "`models` must have names that can be read.*got ''"),
        ({"models": {"a\nb": tiny_model()}}, ArgumentError, "`models` must have names"),
        ({"models": {"a": tiny_model(mean=(0.5, 0.4), std=(0.2, 0.3))}}, ArgumentError, "hold 2 values.*3 channels"),
        ({"images": GreyImages()}, ArgumentError, "hold 3 values, but the images have 1 channel. .*channels=3"),
        (
            {"images": GreyImages(), "models": {"a": tiny_model(mean=None, std=None, target_layers=(None,))}},
            ModelError,
            "does not take images of 1 x 16 x 16.*channels=",
        ),
        ({"models": {"a": tiny_model(target_layers=("0", "0"))}}, ArgumentError, "'0' twice"),
        ({"models": {"a": tiny_model(size=32)}}, ArgumentError, "takes images of 32 x 32.*has 16 x 16"),
        ({"models": {"a": tiny_model(), "z": tiny_model(target_layers=("8",))}}, UnknownNameError, "named '8'"),
        (
            {"models": {"a": tiny_model(), "z": tiny_model(classes=2)}, "images": LabelledImages()},
            ArgumentError,
            "class count mismatch",
        ),
    ],
)  # fmt: skip
def test_bad_input_fails_before_the_first_shard(tmp_path, settings, error, text):
    with pytest.raises(error, match=text):
        study(tmp_path, **settings)
    assert not shard_files(tmp_path)


def test_labels_that_show_up_late_are_checked_as_well(tmp_path):
    with pytest.raises(ArgumentError, match="class count mismatch: 'random squares' has label 2"):
        study(tmp_path, models={"z": tiny_model(classes=2)})


def test_a_network_that_is_another_one_each_time_it_is_built(tmp_path):
    with pytest.raises(ModelError, match="other weights each time"):
        study(tmp_path, models={"a": StudyModel(lambda: tiny_network(torch.seed()))})
    study(tmp_path, models={"a": tiny_model()})  # what failed does not block what is right
    assert len(load_outcomes(tmp_path)) == 2


def test_a_run_that_failed_before_it_measured_does_not_block_another(tmp_path, monkeypatch):
    monkeypatch.setattr(pq, "write_table", lambda *args, **settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        study(tmp_path)
    assert not shard_files(tmp_path)
    monkeypatch.undo()
    study(tmp_path, grid=make_grid(seed=1))
    assert load_manifest(tmp_path)["settings"]["grid"]["seed"] == 1


class Activated(nn.Module):
    """What it does with its weights does not show in them, and that of `secret` in no module either."""

    secret = staticmethod(torch.relu)

    def __init__(self, activation=torch.relu, layer=nn.ReLU, stride=1):
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 4, 3, stride=stride), layer()
        self.second, self.last = nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.activation = activation
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def forward(self, images):
        features = self.second(self.middle(self.first(images)))
        return self.last(type(self).secret(self.activation(features)).mean(dim=(2, 3)))


OTHER_NETWORKS = [{"layer": nn.Tanh}, {"activation": torch.tanh}, {"stride": 2}]


@pytest.mark.parametrize("finished", [True, False])
def test_networks_of_the_same_weights_are_not_mixed(tmp_path, monkeypatch, finished):
    models = [{"a": StudyModel(functools.partial(Activated, **kind))} for kind in ({}, *OTHER_NETWORKS)]
    study(tmp_path, models=models[0])
    if not finished:
        shard_files(tmp_path)[1].unlink()
        (tmp_path / "results.parquet").unlink()
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for other in models[1:]:
        with pytest.raises(ArgumentError, match="other settings.*models.a.structure.*overwrite=True"):
            study(tmp_path, models=other)
    monkeypatch.setattr(Activated, "secret", staticmethod(torch.tanh))
    with pytest.raises(ArgumentError, match="study of another network: 'a' has the same weights.*code was changed"):
        study(tmp_path, models=models[0])
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    monkeypatch.undo()
    study(tmp_path, models=models[0])


def test_logits_that_differ_by_rounding_are_the_same_network(copied):
    path = copied / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["logits"] = {model: [1.0005 * each for each in found] for model, found in manifest["logits"].items()}
    path.write_text(json.dumps(manifest))
    study(copied)


def picture_folder(place):
    from PIL import Image

    for number in range(4):
        file = place / "pictures" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = (RandomImages()[number].pixels.permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(file)
    return place / "pictures"


def array_file(place):
    images = np.stack([RandomImages()[number].pixels.numpy() for number in range(4)])
    np.savez(place / "some.npz", images=images, labels=np.arange(4) % 2)
    return place / "some.npz"


def tensor_dataset(place):
    images = torch.stack([RandomImages()[number].pixels for number in range(4)])
    return TensorDataset(images, torch.arange(4) % 2)


def dataset_of_dicts(place):
    return [{"image": image, "label": int(label)} for image, label in tensor_dataset(place)]


class Data(pl.LightningDataModule):
    def test_dataloader(self):
        return DataLoader(tensor_dataset(None), batch_size=3)


def data_loader(place):
    return DataLoader(tensor_dataset(place), batch_size=3)


def data_module(place):
    return Data()


@pytest.mark.parametrize(
    "data", [picture_folder, array_file, tensor_dataset, dataset_of_dicts, data_loader, data_module]
)
def test_every_kind_of_source_is_measured(tmp_path, data):
    images = open_images(data(tmp_path))
    study(tmp_path / "out", models={"a": tiny_model()}, images=images)
    expected = [images[number].label for number in range(4)]
    assert sorted(expected) == [0, 0, 1, 1]
    assert [each.labels.tolist() for each in load_outcomes(tmp_path / "out")] == [expected] * 2


@pytest.mark.parametrize("data", [picture_folder, array_file])
def test_labels_of_all_images_are_checked_first_where_they_are_known(tmp_path, data):
    images = replace(open_images(data(tmp_path)), labels=(0, 0, 0, 3))
    with pytest.raises(ArgumentError, match="class count mismatch"):
        study(tmp_path / "out", models={"a": tiny_model()}, images=images)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_in_plain_words(tmp_path, workers):
    folder = picture_folder(tmp_path)
    (folder / "b" / "3.png").write_bytes((folder / "b" / "3.png").read_bytes()[:60])
    with pytest.raises(ArgumentError, match="'b/3.png'") as caught:
        study(tmp_path / "out", models={"a": tiny_model()}, images=open_images(folder, size=16), num_workers=workers)
    assert "Traceback" not in str(caught.value)


def test_a_file_name_that_is_no_text(tmp_path):
    folder = picture_folder(tmp_path)
    os.rename(folder / "b" / "3.png", os.fsencode(folder / "b") + b"/3\xff.png")
    study(tmp_path / "out", models={"a": tiny_model()}, images=open_images(folder))
    assert load_outcomes(tmp_path / "out")[0].images[3] == r"b/3\xff.png"


def test_long_names_of_models_and_layers(tmp_path):
    names = [letter * 200 for letter in "ab"]
    network = nn.Sequential()
    for name in names:
        network.add_module(name, nn.Conv2d(3, 3, 3, padding=1))
    network.add_module("rest", tiny_network())
    model = StudyModel(network, target_layers=[names, names[::-1]])
    study(tmp_path, models={"\u6211" * 60: model}, count=2)
    assert [each.target_layer for each in load_outcomes(tmp_path)] == [", ".join(names), ", ".join(names[::-1])]


class Raises:
    def __call__(self, images, *, severity, randomness):
        raise ValueError("boom")


class CamRaises:
    def __call__(self, trace):
        raise KeyError("bang")


def function_raises(images, *, severity, randomness):
    raise IndexError("crash")


def takes_too_little(images):
    return images


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"perturbations": [Raises()]}, "the perturbation 'Raises' raised ValueError: boom.*'square 0.png'"),
        ({"perturbations": [function_raises]}, "perturbation 'function_raises' raised IndexError: crash"),
        ({"perturbations": [takes_too_little]}, "perturbation 'takes_too_little' raised TypeError"),
        ({"methods": ["eigencam", CamRaises()]}, "the CAM method 'CamRaises' raised KeyError: 'bang'"),
    ],
)
def test_a_member_of_the_user_that_raises_is_named(tmp_path, settings, text):
    with pytest.raises(ArgumentError, match=text) as caught:
        study(tmp_path, grid=make_grid(**settings))
    assert caught.value.__cause__ is not None


def test_images_that_a_member_raised_on_are_named(tmp_path):
    loaded = load_model(tiny_model())
    layers = find_layers(loaded, tiny_model(), RandomImages()[0])["0"]
    plan = make_grid(perturbations=[Raises()]).plan()
    with pytest.raises(ArgumentError, match="on images 'square 1.png' to 'square 3.png'"):
        measure_images(loaded, layers, [RandomImages()[number] for number in (1, 2, 3)], plan=plan, chunk_size=4)


def test_the_network_stays_as_it_was(whole, tmp_path):
    network = tiny_network().train()
    network[0].weight.grad = torch.ones_like(network[0].weight)
    before, stream = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    model = StudyModel(network, target_layers=("0", "3"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
    study(tmp_path, models={"tiny/a": model})
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network[0].weight.grad.eq(1).all()
    assert torch.equal(torch.get_rng_state(), stream)
    frame, other = (pd.read_parquet(each / "results.parquet") for each in (whole, tmp_path))
    assert frame[frame["model"] == "tiny/a"]["similarity"].tolist() == pytest.approx(
        other["similarity"].tolist(), abs=0, nan_ok=True
    )


def test_progress_and_quiet(tmp_path, capfd):
    study(tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    study(tmp_path / "loud", progress=True)
    out, err = capfd.readouterr()
    assert out == ""  # where a verdict goes to a file, the bar does not go with it
    assert "28/28 images" in err


def test_progress_of_one_of_several_processes(capfd):
    bar = StudyProgress(total=8, done=2)
    bar.narrow(3)
    bar.start()
    for _ in range(3):
        bar.advance(1)
    bar.stop()
    assert "3/3 images of this process" in capfd.readouterr().err


def test_further_readings_and_kinds_of_noise(tmp_path):
    grid = make_grid(perturbations=("fgsm", "elastic", "contrast"), severities=3, readings="sensitivity")
    study(tmp_path, grid=grid, models={"a": tiny_model()}, count=2)
    outcomes = load_outcomes(tmp_path)[0]
    assert [noise.kind for noise in outcomes.noises] == ["attack", "geometric", "photometric"]
    assert list(outcomes.readings) == list(grid.plan().readings)
    assert not np.array_equal(outcomes.readings["p=0.9"], outcomes.similarity, equal_nan=True)
