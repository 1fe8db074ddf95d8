"""What a customer's program says to the API of a mediad with the embedded database."""

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from aiohttp import ClientSession
from websockets.asyncio.client import connect

__all__ = ["AGENT", "Api", "agent_at"]

AGENT: Mapping[str, Any] = {"prompt": "You never stop talking."}
"""A configuration of an agent."""


def agent_at(port: int) -> Mapping[str, Any]:
    """Return that of one that listens on this machine."""
    return {**AGENT, "url": f"ws://127.0.0.1:{port}"}


class Api:
    """One mediad's, with the first access key.

    Args:
        address: Of its HTTP port.
        directory: Of its database, where the key is.
    """

    def __init__(self, address: tuple[str, int], directory: Path) -> None:
        self.address = address
        self._headers = {"AccessKey": (directory / "access_key").read_text().strip()}

    async def make(self, kind: str, **fields: Any) -> str:
        """Make a thing, and return its id."""
        url = "http://{}:{}/v1/{}".format(*self.address, kind)
        async with (
            ClientSession(headers=self._headers) as session,
            session.post(url, json=fields) as answer,
        ):
            made: dict[str, Any] = await answer.json()
        assert answer.status == 201, made
        return str(made["id"])

    async def register_call(self, agent: Mapping[str, Any]) -> UUID:
        """Let a call come whose agent is configured so; return its id."""
        agent_id = await self.make("agents", name="of one call", config=agent)
        return UUID(await self.make("calls", agent_id=agent_id))

    async def events(
        self, topic: str, *, by: tuple[str, int] | None = None, after: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Subscribe to events, perhaps by way of a proxy; return all that comes while the
        connection lives.

        Raises:
            OSError: If there is none.
            TimeoutError: If it is not opened in time.
            WebSocketException: If it ends in any way.
        """
        async with connect(
            "ws://{}:{}/v1/ws".format(*(by or self.address)),
            additional_headers=self._headers,
            open_timeout=2,
            ping_interval=0.5,  # these find a connection over which nothing comes any more
            ping_timeout=1,
            close_timeout=0.2,
        ) as socket:
            wanted = {"type": "subscribe", "topics": [topic]}
            resumed = {} if after is None else {"after": {topic: after}}
            await socket.send(json.dumps(wanted | resumed))
            async for message in socket:
                yield json.loads(message)
