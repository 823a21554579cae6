"""Classes that trainers of `lightning.pytorch` and of `pytorch_lightning` both accept.

Two packages carry the same trainer, and each takes only callbacks of its own class; ours are of both.
"""

from typing import TYPE_CHECKING

from lightning.pytorch.callbacks import Callback, ModelCheckpoint

if TYPE_CHECKING:
    AnyCallback = Callback
    AnyModelCheckpoint = ModelCheckpoint
else:
    try:
        from pytorch_lightning.callbacks import Callback as _OtherCallback
        from pytorch_lightning.callbacks import Checkpoint as _OtherCheckpoint

        class AnyCallback(Callback, _OtherCallback):
            """A callback for trainers of `lightning.pytorch` and of `pytorch_lightning`."""

        class AnyModelCheckpoint(ModelCheckpoint, _OtherCheckpoint):
            """A checkpoint callback for trainers of either package.

            Of the other package only the empty parent class: its trainer asks for no more, and the same code need not
            be inherited twice.
            """

    except ImportError:
        AnyCallback = Callback
        AnyModelCheckpoint = ModelCheckpoint
