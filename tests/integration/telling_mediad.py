"""A mediad that also prints every event, one JSON object a line: what a program that listens would
know when mediad is killed. Settings come from the environment; the log goes to standard error.
"""

import asyncio
import json
import sys
import time

import uvloop

from mediad.app import App, serve
from mediad.bus.bus import Bus
from mediad.config import load_settings
from mediad.log import logging_to
from mediad.loop_thread import LoopThread


async def tell(bus: Bus) -> None:
    """Print events, live and durable, until cancelled."""
    with bus.subscribe(live=True, durable=True) as events:
        async for event in events:
            line = {
                "at": time.monotonic(),
                "type": event.type,
                "call": event.call_id,
                "id": event.event_id,
                "sequence": event.sequence,
                "text": event.data.get("text"),
            }
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()


async def main() -> None:
    """Run mediad. The events are printed by another thread: a full pipe holds up no call."""
    app = App(load_settings())
    telling = LoopThread("telling")
    telling.start()
    task = asyncio.create_task(telling.run(tell(app.bus)))
    try:
        await serve(app, load_settings)
    finally:
        task.cancel()
        await telling.stop()


if __name__ == "__main__":
    with logging_to("info"):
        uvloop.run(main())
