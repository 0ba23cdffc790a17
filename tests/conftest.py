"""The real model for the tests that want it: they are skipped where it is not installed, and fail where it is damaged.

The model takes half a gigabyte and each file of tests goes to one worker, so `smollm2` is for few files:
tests/shared/test_smollm2.py, and tests/lessons/test_kv_weights.py.
"""

import pytest


@pytest.fixture(scope="session")
def smollm2_path():
    """The real model's file."""
    from shared.smollm2 import is_installed, smollm2_file

    if is_installed():
        return smollm2_file()
    with pytest.raises(ValueError) as refused:
        smollm2_file()
    pytest.skip(str(refused.value))


@pytest.fixture(scope="session")
def smollm2(smollm2_path):
    """The real model and its tokenizer."""
    from shared.smollm2 import load_smollm2

    return load_smollm2()
