import os

import pytest


@pytest.fixture(scope="session")
def prepared_directory():
    """The directory of the real data sets, where there is one."""
    directory = os.environ.get("KERAS_MTL_DATA")
    if directory is None:
        pytest.skip("KERAS_MTL_DATA names no directory of real data")
    return directory
