"""Watch whether an image classifier keeps looking at the same place under noise, while it trains in PyTorch Lightning.

Names are loaded when first used, so that ``import lightning_camrobust`` stays light; ``__init__.pyi`` lists them.
"""

import lazy_loader

from lightning_camrobust._version import __version__ as __version__

__getattr__, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
__all__ = sorted(_names)
