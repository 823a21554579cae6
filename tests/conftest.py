import contextlib
import os
import threading
from pathlib import Path

import pytest
import torch

# Small networks: a second thread costs more than it brings.
torch.set_num_threads(1)
with contextlib.suppress(Exception):
    # Libraries that set a variable when first imported; before the first test, that is nobody's fault.
    # A package that cannot be imported is told of by each test file that needs it.
    import pytorch_grad_cam  # noqa: F401

    import lightning_camrobust.callback  # noqa: F401
# Set by Lightning itself, for good, when it is asked for a seed or for determinism.
_BY_LIGHTNING = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG", "PYTEST_CURRENT_TEST"}


def _world():
    return {
        "environment": {key: value for key, value in os.environ.items() if key not in _BY_LIGHTNING},
        "threads": {thread.name for thread in threading.enumerate() if not thread.daemon},
        "process group": torch.distributed.is_available() and torch.distributed.is_initialized(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "default dtype": torch.get_default_dtype(),
        "threads of torch": torch.get_num_threads(),
        "files": sorted(path.name for path in Path.cwd().iterdir() if not path.name.startswith((".", "__"))),
    }


@pytest.fixture(autouse=True)
def _leaves_the_world_as_it_was():
    """Seed each test, and fail one that leaves a thread, a file, a variable, a process group or a mode behind."""
    torch.manual_seed(0)
    before = _world()
    yield
    torch.use_deterministic_algorithms(False)
    after = _world()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not changed
