import pytest
import torch

# Small networks: a second thread costs more than it brings, and tests run beside each other in two processes.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
