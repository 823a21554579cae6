"""Against the package `imagecorruptions`, for the corruptions that draw nothing.

It is not installed with the tests: it wants `pkg_resources`, which newer setuptools no longer have, and its other
corruptions call scikit-image and numpy by names that are gone.
"""

import warnings

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.transform import resize

from lightning_camrobust import perturb_images

THEIRS = {"jpeg": "jpeg_compression"}
DETERMINISTIC = ("contrast", "brightness", "saturate", "pixelate", "jpeg", "defocus_blur", "zoom_blur")


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_corruption_equals_that_of_imagecorruptions(name, severity):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        corrupt = pytest.importorskip("imagecorruptions", exc_type=ImportError).corrupt
        picture = (resize(astronaut(), (224, 224), anti_aliasing=True) * 255).astype(np.uint8)
        theirs = corrupt(picture, corruption_name=THEIRS.get(name, name), severity=severity)
    images = torch.from_numpy(picture / 255.0).permute(2, 0, 1)[None].float()
    ours = perturb_images(images, name, severity)[0].permute(1, 2, 0).numpy() * 255
    # Theirs cuts to whole levels.
    assert float(np.abs(theirs.astype(float) - ours).max()) < 1.001
