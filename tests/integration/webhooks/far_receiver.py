"""Customers' servers in a process of their own: so it is mediad's time that a test takes.

``POST`` is answered, but under /hang; ``GET /late`` tells of each how long after its event it came.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import ClientSession, web

__all__ = ["FarReceiver", "run"]


class FarReceiver:
    """What runs there."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self.url = url
        self._session = session

    async def late_s(self) -> list[float]:
        """Return how late each delivery so far was, in seconds."""
        async with self._session.get(f"{self.url}/late") as answer:
            late: list[float] = await answer.json()
        return late


@asynccontextmanager
async def run() -> AsyncIterator[FarReceiver]:
    """Run it while the block lasts."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().strip()
        async with ClientSession() as session:
            yield FarReceiver(url, session)
    finally:
        process.stdin.close()
        await process.wait()


async def _serve() -> None:
    late: list[float] = []

    async def receive(request: web.Request) -> web.Response:
        raw = await request.read()
        if request.path.startswith("/hang"):
            await asyncio.sleep(3600)
        happened = datetime.fromisoformat(json.loads(raw)["created"])
        late.append((datetime.now(UTC) - happened).total_seconds())
        return web.Response(text="thank you")

    async def tell(_: web.Request) -> web.Response:
        return web.json_response(late)

    app = web.Application()
    app.router.add_get("/late", tell)
    app.router.add_post("/{path:.*}", receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until who has started it ends, or says so
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve())
