"""Types of the callback's arguments, so that YAML can spell them: LightningCLI reads them off the signature.

Strings stand first in each union. Where a callable stands first, jsonargparse takes the word for one when it saves the
configuration, and writes ``Unable to serialize instance gradcam`` into the file that is kept with each run. And a union
with the narrower protocols of `types` would read them as factories, and refuse a class path.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch import nn

# The name of a member (CAM method, perturbation, segmenter, similarity), the dotted path of its class, or an instance.
Member: TypeAlias = str | Callable[..., Any]

# A module or its dotted name. No YAML can hold a module of the network, and with `nn.Module` in the type the help would
# list each of its subclasses, 700 lines.
if TYPE_CHECKING:
    Layer: TypeAlias = str | nn.Module
else:
    Layer: TypeAlias = str
