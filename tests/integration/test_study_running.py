"""Studies through the Trainer: killed, resumed, shared among processes, refused: the same numbers or an error."""

import errno
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from lightning_camrobust.errors import ArgumentError, ModelError, UnknownNameError
from lightning_camrobust.measure import measure_stability
from lightning_camrobust.study import running
from lightning_camrobust.study.model import StudyModel
from lightning_camrobust.study.prober import ShardProber
from lightning_camrobust.study.results import load_manifest, load_outcomes
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


def test_running_a_finished_study_again_measures_nothing(copied, whole, monkeypatch):
    monkeypatch.setattr(running, "measure_images", None)
    monkeypatch.setattr(ShardProber, "predict_step", None)
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
    Path(f"{files[4]}.123.tmp").write_bytes(b"left by a killed run")
    (copied / "results.parquet").unlink()
    with pytest.raises(ArgumentError, match="1 of 12 shards are missing. Run the same command again"):
        load_outcomes(copied)
    study(copied)
    assert results(copied) == results(whole)
    assert not list(copied.rglob("*.tmp"))


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

    labels = (-1, 1, 2, 0, 1, 2, 0)


class Interrupted(RandomImages):
    """Ctrl-C, or SIGTERM, comes while the fifth image is read for the second time."""

    def __getitem__(self, index):
        if index == 4 and self.name == "random squares" and signals:
            os.kill(os.getpid(), signals.pop())
        return super().__getitem__(index)


signals = []


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
    assert "28/28 images" in capfd.readouterr().out


def test_further_readings_and_kinds_of_noise(tmp_path):
    grid = make_grid(perturbations=("fgsm", "elastic", "contrast"), severities=3, readings="sensitivity")
    study(tmp_path, grid=grid, models={"a": tiny_model()}, count=2)
    outcomes = load_outcomes(tmp_path)[0]
    assert [noise.kind for noise in outcomes.noises] == ["attack", "geometric", "photometric"]
    assert list(outcomes.readings) == list(grid.plan().readings)
    assert not np.array_equal(outcomes.readings["p=0.9"], outcomes.similarity, equal_nan=True)
