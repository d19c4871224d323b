"""Lets the tests of layers import `layer_check`, with its asserts explained."""

import pytest

pytest.register_assert_rewrite("layer_check")
