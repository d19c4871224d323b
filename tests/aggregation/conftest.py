"""Lets the tests of aggregators import `reference`, with its asserts explained."""

import pytest

pytest.register_assert_rewrite("reference")
