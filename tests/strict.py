"""What a test does when something it needs is not on this machine."""

import os

import pytest


def require(condition: bool, reason: str) -> None:
    """Skip the test with ``reason``, or fail where TRANSFORMER_LAB_STRICT=1 allows no skips, as in CI."""
    if condition:
        return
    if os.environ.get("TRANSFORMER_LAB_STRICT") == "1":
        pytest.fail(f"{reason} (and TRANSFORMER_LAB_STRICT=1 allows no skips)")
    pytest.skip(reason)
