"""The world of the lying server, for whoever fetches."""

import pytest

from tests.data import lying_server
from transformer_lab.data import registry

server = pytest.fixture(lying_server.running)


@pytest.fixture
def world(server, monkeypatch, tmp_path):
    """A set that this server gives, a cache of its own, no mirror, and nobody really waits."""
    for name in (registry.MIRROR, registry.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    world = lying_server.World(server, tmp_path / "transformer_lab", monkeypatch)
    monkeypatch.setattr(registry, "sleep", world.waited.append)
    world.serve("whole")
    return world
