"""One torch thread per test process: two share the suite, and small tensors gain nothing from more. And the
environment that Intel's Lava runs in.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lava():
    """The Python of the environment with Lava; where there is none, the test is skipped, or with
    LRNN_LAVA_TESTS=require fails.
    """
    from lrnn.export.lava.environment import find_lava

    python = find_lava()
    if python is None:
        told = "no environment with Lava: `make lava` builds one"
        (pytest.fail if os.environ.get("LRNN_LAVA_TESTS") == "require" else pytest.skip)(told)
    return python
