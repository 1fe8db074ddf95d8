"""A webhook receiver as a program of its own (``python -m tests.faults.receiver PORT``): it prints
where it listens, and the id of each event before it answers; it ends when its standard input does.
"""

import asyncio
import json
import sys

from aiohttp import web


async def _receive(request: web.Request) -> web.Response:
    print(json.loads(await request.read())["id"], flush=True)
    return web.Response()


async def _main(port: int) -> None:
    app = web.Application()
    app.router.add_post("/", _receive)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
