"""What a study says of itself: settings, hashes, versions, times."""

import datetime
import hashlib
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from lightning_camrobust._version import __version__
from lightning_camrobust.errors import ArgumentError
from lightning_camrobust.study.storage import written_whole

MANIFEST = "manifest.json"
_PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "scipy", "scikit-image", "grad-cam", "pyarrow")

# What logits may differ by between machines and numbers of threads, as a share of the largest one.
_ARITHMETIC = 1e-2

Manifest = dict[str, Any]


def digest_of(settings: Mapping[str, Any]) -> str:
    """Hash all that determines the numbers.

    Args:
        settings: Plain data.

    Returns:
        Hexadecimal SHA-256.

    Example:
        >>> digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def new_manifest(settings: Mapping[str, Any]) -> Manifest:
    """Begin a manifest.

    Args:
        settings: All that determines the numbers, as plain data.

    Returns:
        The manifest, without sessions. Settings are as they will be read again: lists in place of tuples.

    Example:
        >>> new_manifest({"severities": (1, 5)})["settings"]
        {'severities': [1, 5]}
    """
    plain = json.loads(json.dumps(settings))
    return {"settings": plain, "digest": digest_of(plain), "sessions": [], "seconds": {}}


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Make sure that a folder is used for one study only.

    Args:
        before: Settings in the manifest.
        now: Settings of this session.
        folder: For the message.

    Raises:
        ArgumentError: If they differ; the message names the first differences.
    """
    changed = differences(before, new_manifest(now)["settings"])
    if changed:
        more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ArgumentError(
            f"run_study: the folder {folder} holds a study with other settings: {'; '.join(changed[:3])}{more}. The "
            "numbers must not be mixed: name another folder, or start anew in this one with overwrite=True."
        )


def check_same_answers(before: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Make sure that models answer as they did when the study was begun.

    Weights and structure do not show what the code of a network does with them.

    Args:
        before: A few logits of the first image by model, as earlier sessions noted them; empty if they did not.
        now: Those of this session.
        folder: For the message.

    Raises:
        ArgumentError: If they differ by more than arithmetic on another machine explains.

    Example:
        >>> check_same_answers({"net": [1.0, 2.0]}, {"net": [1.0001, 2.0]}, folder=Path("results"))
    """
    for model, earlier in before.items():
        found = now[model]
        slack = _ARITHMETIC * max(map(abs, [*earlier, *found]), default=0.0)
        if len(earlier) != len(found) or any(abs(a - b) > slack for a, b in zip(earlier, found, strict=True)):
            raise ArgumentError(
                f"run_study: the folder {folder} holds a study of another network: {model!r} has the same weights, but "
                f"its logits of the first image begin with {_short(earlier[:3])} there, and with {_short(found[:3])} "
                "now, so its code was changed. The numbers must not be mixed: name another folder, or start anew in "
                "this one with overwrite=True."
            )


def begin_session(manifest: Manifest, session: Mapping[str, Any], *, seconds: Mapping[str, Any]) -> None:
    """Add a session that has just begun, and the seconds that earlier ones took by model and layer."""
    manifest["sessions"].append({**session, "started": _now(), "finished": None})
    manifest["seconds"] = seconds


def finish_session(manifest: Manifest, *, seconds: Mapping[str, Any]) -> None:
    """Note that the running session is finished, and the seconds of all."""
    manifest["sessions"][-1]["finished"] = _now()
    manifest["seconds"] = seconds


def describe_session(trainer: Mapping[str, Any], *, device: str, **settings: int) -> dict[str, Any]:
    """Describe one start of the program.

    Args:
        trainer: Arguments of the Trainer.
        device: On which it measures.
        settings: Plain numbers that do not change what is measured, such as ``chunk_size``.

    Returns:
        Plain data.
    """
    return {
        "versions": {"lightning_camrobust": __version__, "python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "device": device,
        "threads": torch.get_num_threads(),
        "trainer": {name: _plain(value) for name, value in trainer.items()},
        "command_line": list(sys.argv),
        **settings,
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it in one step; a former one is there until the new one is whole."""
    with written_whole(folder / MANIFEST) as part:
        part.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """Read it.

    Args:
        folder: Of the study.

    Returns:
        The manifest, or None if there is none.

    Raises:
        ArgumentError: If it is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    missing = [] if isinstance(manifest, dict) else ["settings"]
    missing = missing or [key for key in ("settings", "digest", "sessions") if key not in manifest]
    if missing:
        raise _damaged(path, f"it has no {missing[0]!r}")
    if digest_of(manifest["settings"]) != manifest["digest"]:
        raise _damaged(path, "its settings were changed after it was written")
    return manifest  # type: ignore[no-any-return]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Name what differs between two settings, in the deepest place.

    Args:
        before: Plain data.
        now: Plain data.

    Returns:
        One sentence part each.

    Example:
        >>> differences({"grid": {"seed": 0}}, {"grid": {"seed": 1}})
        ['grid.seed was 0 and is 1']
    """
    return _differences(before, now, place="")


def _differences(before: Any, now: Any, *, place: str) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [
            line
            for key in dict.fromkeys([*before, *now])
            for line in _differences(before.get(key), now.get(key), place=f"{place}.{key}" if place else str(key))
        ]
    return [] if before == now else [f"{place} was {_short(before)} and is {_short(now)}"]


def _short(value: object) -> str:
    if value is None:
        return "not there"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _damaged(path: Path, why: str) -> ArgumentError:
    return ArgumentError(
        f"The study's manifest {path} cannot be used: {why}. Put the original file back, measure into another folder, "
        "or start anew in this one with run_study(..., overwrite=True)."
    )


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return repr(value)
