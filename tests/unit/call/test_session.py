"""The end of a session whose agent's link does not end well."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

import mediad.call.session as session_module
from mediad.ai.connect import CallInfo
from mediad.bus.bus import Bus
from mediad.call.session import Session
from mediad.config import Settings
from mediad.line import Line
from mediad.metrics import Metrics


class Way:
    """The way to an agent by no token."""

    token = None


class BadLink:
    """A link that never ends, or fails in it."""

    error: Exception | None = None

    def __init__(self, *_: object) -> None:
        pass

    async def closed(self) -> None:
        """Do not return."""
        if self.error is not None:
            raise self.error
        await asyncio.get_running_loop().create_future()


class NotedPath:
    """A path that takes note of its end."""

    def __init__(self, *_: object) -> None:
        self.is_closed = False

    def close(self) -> None:
        """Take note of it."""
        self.is_closed = True


@pytest.fixture
async def session(monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session with a bad link and a path."""
    monkeypatch.setattr(session_module, "AgentLink", BadLink)
    monkeypatch.setattr(session_module, "Path", NotedPath)
    metrics = Metrics()
    line, settings = Line("slin", "ulaw", 60.0), Settings()
    nobody: Any = None
    made = Session(CallInfo(str(uuid4())), line, nobody, settings, Bus(metrics), metrics, b"")
    way: Any = Way()
    pump: Any = object()
    made.open(way, pump)
    return made


async def test_link_that_fails_in_its_end_does_not_keep_the_path(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path: Any = session.path
    monkeypatch.setattr(BadLink, "error", RuntimeError("not now"))
    with pytest.raises(RuntimeError, match="not now"):
        await session.goodbye()
    assert path.is_closed
    assert session.path is None


async def test_link_that_does_not_end_does_not_keep_the_path(session: Session) -> None:
    path: Any = session.path
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await session.goodbye()
    assert path.is_closed
    assert session.path is None
