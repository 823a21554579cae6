"""Measure everything in one run and write docs/performance.md and docs/performance.json."""

import argparse
import json
import platform
import time
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks import ablation, memory, peers, probe_ratio, scaling, segmentation, training
from benchmarks.tables import Table

PACKAGES = ("torch", "torchvision", "lightning", "grad-cam", "torchcam", "scikit-image", "timm", "numpy")
HEAD = """# What it costs

Ratios measured side by side in one run by `make bench`; nothing here comes from a timed test. The physical limit of a
probe is (1 + K) inference forwards of the probed images, K noisy copies each.

"""


def machine(device: str) -> dict[str, str]:
    """Describe where the numbers come from."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    where = name if device == "cpu" else torch.cuda.get_device_name()
    return {
        "device": f"{where}, {torch.get_num_threads()} threads" if device == "cpu" else where,
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d}",
        "python": platform.python_version(),
        **{each: version(each) for each in PACKAGES},
    }


def main() -> None:
    """Parse arguments, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="measure these tables only, by module name")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--cifar", type=Path, help=".npz with x_train, y_train, x_test, y_test (N, 32, 32, 3) uint8")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder to write performance.md and .json into")
    arguments = parser.parse_args()
    timed = {"device": arguments.device, "rounds": arguments.rounds}
    measures = {
        "probe_ratio": partial(probe_ratio.measure, **timed),
        "peers": partial(peers.measure, device=arguments.device, rounds=3),
        "ablation": partial(ablation.measure, **timed),
        "training": partial(training.measure, device=arguments.device, cifar=arguments.cifar),
        "scaling": partial(scaling.measure, **timed),
        "memory": partial(memory.measure, device=arguments.device),
        "segmentation": partial(segmentation.measure, **timed),
    }
    start, tables = time.perf_counter(), []
    for name in arguments.only or measures:
        begin = time.perf_counter()
        tables.append(measures[name]())
        print(tables[-1].markdown(), f"({time.perf_counter() - begin:.0f} s)\n", flush=True)
    write(tables, arguments.out, machine(arguments.device), minutes=(time.perf_counter() - start) / 60)


def write(tables: list[Table], folder: Path, about: dict[str, str], *, minutes: float) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = ", ".join(f"{key} {value}" for key, value in about.items() if key not in ("device", "date"))
    ending = f"Measured on {about['date']} in {minutes:.1f} minutes on {about['device']}; {versions}.\n"
    text = HEAD + "\n".join(table.markdown() for table in tables) + "\n" + ending
    (folder / "performance.md").write_text(text, encoding="utf-8")
    data = {"machine": about, "minutes": round(minutes, 2), "tables": [table.data() for table in tables]}
    (folder / "performance.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
