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
        from pytorch_lightning.callbacks import ModelCheckpoint as _OtherModelCheckpoint

        class AnyCallback(Callback, _OtherCallback):
            """A callback for trainers of `lightning.pytorch` and of `pytorch_lightning`."""

        class AnyModelCheckpoint(ModelCheckpoint, _OtherModelCheckpoint):
            """A checkpoint callback for trainers of either package.

            The second parent is there for ``isinstance``, by which its trainer finds ``ckpt_path="last"``. All methods
            are those of the first, which has the same ones.
            """

    except ImportError:
        AnyCallback = Callback
        AnyModelCheckpoint = ModelCheckpoint
