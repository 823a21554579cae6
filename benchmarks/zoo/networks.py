"""The networks of the sweep: all classifiers of torchvision, and the smallest member of each family of timm."""

import warnings
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Entry:
    """One network of the sweep.

    Attributes:
        library: ``"torchvision"`` or ``"timm"``.
        family: timm's family; torchvision's own name of the network.
        network: Name by which the library builds it.
    """

    library: str
    family: str
    network: str

    @property
    def key(self) -> str:
        """Name in the result file."""
        return f"{self.library}/{self.network}"


def torchvision_entries() -> list[Entry]:
    """List all classifiers of torchvision."""
    from torchvision import models

    return [Entry("torchvision", name, name) for name in models.list_models(module=models)]


def timm_entries() -> list[Entry]:
    """List the smallest member, by number of parameters, of each family of timm; takes some minutes."""
    import timm

    return [Entry("timm", family, _smallest(family)) for family in sorted(timm.list_modules())]


def build(entry: Entry, *, seed: int = 0) -> tuple[nn.Module, int]:
    """Build a network with random weights.

    Args:
        entry: Which one.
        seed: Of the weights.

    Returns:
        The network, and the side of its input in pixels.
    """
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        # Both libraries announce changes of defaults that do not matter here.
        warnings.simplefilter("ignore")
        if entry.library == "torchvision":
            from torchvision import models

            network, side = models.get_model(entry.network, weights=None), 224
        else:
            import timm

            network = timm.create_model(entry.network, pretrained=False)
            side = network.default_cfg["input_size"][-1]
    _wake(network)
    return network, side


def _wake(network: nn.Module) -> None:
    """Undo zeros that a network begins with: behind them it is the same whatever the image shows."""
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if bool(parameter.any()):
                continue
            if name == "weight" and parameter.dim() == 1:
                # The gain of a normalisation at the end of a branch.
                nn.init.ones_(parameter)
            elif parameter.dim() > 1:
                # A linear layer, or a table of relative positions, without which attention is even everywhere.
                nn.init.normal_(parameter, std=0.02 if name == "weight" else 1.0)


def _smallest(family: str) -> str:
    import timm

    names = timm.list_models(module=family)
    # Toys of a few thousand parameters, for timm's own tests.
    real = [name for name in names if not name.startswith("test_")] or names
    sizes = {name: _parameters(name) for name in real}
    return min(sizes, key=lambda name: (sizes[name], name))


def _parameters(name: str) -> float:
    import timm

    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            return float(sum(each.numel() for each in timm.create_model(name, pretrained=False).parameters()))
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            # Some cannot be built without memory; they are taken only where all of a family are so.
            return float("inf")
