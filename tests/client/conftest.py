"""A service that really listens, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tallystick.client.client import Client
from tests.serve.conftest import Running, it

__all__ = ["it"]


@pytest.fixture
def client(it: Running) -> Iterator[Client]:
    """A client of the tenant `acme`, that may do everything there."""
    with Client(it.url, it.keys["acme/Admin"], seconds=20) as made:
        yield made
