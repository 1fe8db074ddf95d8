"""The server of ``mediad agent --role``: one WebSocket a call, as many as are allowed at once."""

import asyncio
import signal
from functools import partial
from socket import socket

from websockets.asyncio.server import ServerConnection, serve

from mediad.speech.roles.call import OpenHandler, serve_call
from mediad.wire.frames import MAX_MESSAGE_SIZE
from mediad.wire.service import Role

__all__ = ["run_role"]

_TRY_AGAIN_LATER = 1013


async def run_role(
    listener: socket, role: Role, open_handler: OpenHandler, *, max_calls: int
) -> None:
    """Serve calls until SIGINT or SIGTERM; print ``stt listening on ws://…`` when ready."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    calls = _Calls(role, open_handler, max_calls)
    async with serve(
        calls.serve, sock=listener, compression=None, max_size=MAX_MESSAGE_SIZE, close_timeout=1
    ):
        host, port = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        print(f"{role} listening on ws://{host}:{port}", flush=True)
        await stopped.wait()


class _Calls:
    """Counts the calls."""

    def __init__(self, role: Role, open_handler: OpenHandler, most: int) -> None:
        self._serve_call = partial(serve_call, role=role, open_handler=open_handler)
        self._most = most
        self._now = 0

    async def serve(self, websocket: ServerConnection) -> None:
        """Serve one connection, unless there are too many."""
        if self._now >= self._most:
            await websocket.close(_TRY_AGAIN_LATER, "too many calls")
            return
        self._now += 1
        try:
            await self._serve_call(websocket)
        finally:
            self._now -= 1
