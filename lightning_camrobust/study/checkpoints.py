"""Read the weights in a checkpoint file, without running anything that is in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_camrobust.errors import ArgumentError

# How many names a message shows.
_SHOWN = 4


def read_weights(path: str | Path, *, entry: str | None = None) -> dict[str, Tensor]:
    """Read the state dict in a checkpoint file. Nothing in the file is executed.

    Args:
        path: A file of ``torch.save`` (a state dict, or a dict that holds one, as Lightning's .ckpt), or .safetensors.
        entry: Which entry of the file holds the weights, such as ``"model_ema"``; None if only one does.

    Returns:
        Parameters and buffers by name, on the CPU.

    Raises:
        ArgumentError: If the file is missing or is no checkpoint, needs classes to be unpickled, holds no weights, or
            holds several sets of them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": torch.nn.Linear(2, 3).state_dict(), "epoch": 4}, f"{folder}/last.ckpt")
        ...     sorted(read_weights(f"{folder}/last.ckpt"))
        ['bias', 'weight']
    """
    file = Path(path).expanduser()
    if not file.is_file():
        what = "is a folder; name the file in it" if file.is_dir() else "does not exist; check the path"
        raise ArgumentError(f"StudyModel: `weights` {str(path)!r} {what}.")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
    return _find_state_dict(content, file, entry)


def list_names(names: Sequence[str]) -> str:
    """List names in a message, the first few of many.

    Args:
        names: Of entries or parameters.

    Returns:
        The names, joined by commas.

    Example:
        >>> list_names(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d, ... 2 more'
    """
    more = f", ... {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read_safetensors(file: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ArgumentError(
            f"StudyModel: reading {str(file)!r} needs the package safetensors. Install it: pip install safetensors."
        ) from error
    try:
        return load_file(file, device="cpu")
    except Exception as error:
        raise _not_a_checkpoint(file, error) from error


def _read_torch(file: Path) -> Any:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Text is mistaken for a pickle at first; real ones begin with its mark, or lie in an archive.
        pickled = _start(file)[:1] in {b"\x80", b"P"}
        if pickled and ("Unsupported" in str(error) or "GLOBAL" in str(error)):
            raise _needs_classes(file, error) from error
        if "TorchScript" in str(error):
            raise _torchscript(file) from error
        raise _not_a_checkpoint(file, error) from error
    if isinstance(content, torch.jit.ScriptModule):  # as torch before 2.6 reads it
        raise _torchscript(file)
    return content


def _torchscript(file: Path) -> ArgumentError:
    return ArgumentError(
        f"StudyModel: {str(file)!r} is a TorchScript archive, whose layers cannot be looked into. Save the state dict "
        "of the network instead: torch.save(network.state_dict(), 'weights.pt')."
    )


def _needs_classes(file: Path, error: Exception) -> ArgumentError:
    said = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
    return ArgumentError(
        f"StudyModel: {str(file)!r} holds Python objects, and unpickling them could run any code, so it is not done "
        f"here ({said[:160]}). If you trust the file, save its weights alone: "
        f"checkpoint = torch.load({str(file)!r}, map_location='cpu', weights_only=False); then "
        "torch.save(checkpoint['state_dict'], 'weights.pt'), or torch.save(checkpoint.state_dict(), 'weights.pt') if "
        "the file holds a whole network; and pass weights='weights.pt'."
    )


def _not_a_checkpoint(file: Path, error: Exception) -> ArgumentError:
    start = _start(file)
    hint = "It may be damaged, or only partly copied; fetch it again."
    if not start:
        hint = "The file is empty."
    elif start.startswith(b"version https://git-lfs"):
        hint = "It is a pointer of Git LFS; fetch the file itself: git lfs pull."
    return ArgumentError(
        f"StudyModel: `weights` {str(file)!r} is not a checkpoint that torch or safetensors can read "
        f"({type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}). {hint}"
    )


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)


def _find_state_dict(content: Any, file: Path, entry: str | None) -> dict[str, Tensor]:
    if entry is None and _is_state_dict(content):
        return dict(content)
    entries = content if isinstance(content, Mapping) else {}
    found = [key for key, value in entries.items() if isinstance(key, str) and _is_state_dict(value)]
    if entry is not None and entry in found:
        return dict(entries[entry])
    if entry is None and len(found) == 1:
        return dict(entries[found[0]])
    if entry is None and found:
        raise ArgumentError(
            f"StudyModel: {str(file)!r} holds {len(found)} sets of weights: {list_names(found)}. Say which: "
            f"entry={found[0]!r}."
        )
    held = list_names([str(key) for key in entries]) if entries else f"a {type(content).__name__}"
    missing = "no weights" if entry is None else f"no weights under entry={entry!r}"
    raise ArgumentError(
        f"StudyModel: {str(file)!r} holds {missing}, that is no dict of tensors by name; it holds {held}. "
        "Save them with torch.save(network.state_dict(), 'weights.pt')."
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(each, Tensor) for key, each in value.items())
    )
