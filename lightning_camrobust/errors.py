"""What can go wrong, as a tree.

    CAMRobustnessError
    |- ArgumentError (ValueError)      a setting or a tensor is not what was asked for
    |  |- UnknownNameError             no member or layer of that name; the nearest ones are shown
    |  |- BatchFormatError             no images could be found in a batch
    |- ModelError (RuntimeError)       the network itself cannot be explained this way
    |  |- NoSpatialLayerError          no layer with a spatial output feeds the prediction
    |  |- LayerNotReachedError         the target layer did not run, or no gradient gets back to it
    |- StudyFolderError (OSError)      in study/storage.py: the folder of a study cannot be written to
    |- ReportWriteError (OSError)      in study/page/writing.py: a report cannot be written

Every message says who speaks, which argument, what was expected, what came, and what to do next.
"""

import difflib
from collections.abc import Iterable


class CAMRobustnessError(Exception):
    """Parent of every error this package raises on purpose."""


class ArgumentError(CAMRobustnessError, ValueError):
    """A setting or a tensor is not what was asked for."""


class UnknownNameError(ArgumentError):
    """No member or layer carries the given name."""


class BatchFormatError(ArgumentError):
    """No images could be found in a batch."""


class ModelError(CAMRobustnessError, RuntimeError):
    """The network cannot be explained the way it was asked for."""


class NoSpatialLayerError(ModelError):
    """No layer with a spatial output feeds the prediction."""


class LayerNotReachedError(ModelError):
    """The target layer did not run, or no gradient gets back to it."""


def nearest_names(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Show the known names closest to a misspelt one, ready to be put in a message.

    Args:
        name: What was asked for.
        known: What exists.
        count: How many to show at most.

    Returns:
        The nearest names, quoted and joined by commas; all of them (up to ten) when none is near.

    Example:
        >>> nearest_names("gradcm", ["gradcam", "eigencam", "layercam"], count=1)
        "'gradcam'"
        >>> nearest_names("Grad-CAM++", ["gradcam", "gradcam_plusplus", "layercam"], count=1)
        "'gradcam_plusplus'"
    """
    names = sorted(known)
    # "Grad-CAM++" is how the papers spell it.
    spelt = "".join(name.lower().replace("++", "_plusplus").replace("-", "").split())
    near = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    plain = [each for each in difflib.get_close_matches(spelt, names, n=count, cutoff=0.8) if each not in near]
    found = [*plain, *near][:count] or names[:10]
    return ", ".join(repr(each) for each in found) if found else "none"
