"""A fixed sample of the zoo: `CAMRobustnessCallback()` on networks of torchvision and timm, random weights."""

import json
import math

import pytest

from benchmarks.zoo.__main__ import measure_apart, read
from benchmarks.zoo.measure import measure
from benchmarks.zoo.networks import Entry, torchvision_entries
from benchmarks.zoo.table import as_markdown

# A CNN, one whose last layer is no convolution, windows with channels last, a mixer, a transformer of each kind, and a
# network that goes on with tokens where convolutions ended.
SAMPLE = {
    "torchvision/mobilenet_v3_small": "features.12.2",
    "torchvision/shufflenet_v2_x0_5": "conv5.2",
    "timm/deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "timm/swin_tiny_patch4_window7_224": "norm",
    "timm/convnext_atto": "stages.3.blocks.1",
    "timm/mixer_s32_224": "norm",
    "timm/maxvit_rmlp_pico_rw_256": "norm",
    "timm/vit_tiny_r_s16_p8_224": "blocks.11.norm1",
}


@pytest.mark.parametrize("key", SAMPLE)
def test_the_callback_works_without_an_argument(key):
    library, _, name = key.partition("/")
    row = measure(Entry(library, name, name))
    assert row.get("error") is None
    assert row["layer"] == SAMPLE[key]
    assert math.isfinite(row["score"])


def test_all_classifiers_of_torchvision_are_in_the_sweep():
    names = [entry.network for entry in torchvision_entries()]
    assert len(names) >= 80
    assert {"alexnet", "vit_h_14", "swin_v2_b", "maxvit_t"} <= set(names)


def test_a_network_that_cannot_be_built_is_a_row_with_an_error(tmp_path):
    row = measure_apart(Entry("timm", "nonsense", "nonsense"), limit_s=60)
    assert row["score"] is None
    assert "nonsense" in row["error"]
    results = tmp_path / "zoo.jsonl"
    results.write_text(json.dumps(row) + "\n" + '{"key": "timm/cut o', encoding="utf-8")
    assert list(read(results)) == ["timm/nonsense"]
    assert "| nonsense |" in as_markdown(list(read(results).values()))
    assert "0 of 1 families" in as_markdown([row])
