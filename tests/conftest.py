"""What the tests of the package share."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Small tensors are faster on one thread, and far steadier on a machine that does something else as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
