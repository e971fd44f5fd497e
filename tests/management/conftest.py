import pytest
from django.db.utils import ConnectionHandler


@pytest.fixture(autouse=True)
def open_connections(monkeypatch):
    """Django closes the connections after a command that was typed; with them would go the test's transaction."""
    monkeypatch.setattr(ConnectionHandler, "close_all", lambda self: None)
