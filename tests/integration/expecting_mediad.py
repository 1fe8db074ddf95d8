"""A mediad that expects one call, says so on standard output when that is safe, and runs until it
is killed. Settings come from the environment; the argument is the call's id.
"""

import sys

import uvloop

from mediad.app import App
from mediad.bus.commands import Expect
from mediad.config import load_settings


async def main() -> None:
    """Run mediad."""
    async with App(load_settings()) as app:
        with app.bus.subscribe(live=False, durable=True) as events:
            await app.commands.send(sys.argv[1], Expect("ours", source="alice"))
            async for event in events:  # durable: the database has it
                print(event.type, flush=True)


if __name__ == "__main__":
    uvloop.run(main())
