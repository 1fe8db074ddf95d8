"""Commands from one loop to another."""

import asyncio
import threading

import pytest

from mediad.bus.commands import Command, Commands, Done, LiveCall, Look, Reply
from mediad.errors import CallLost, CommandRefused, CommandTimeout
from mediad.loop_thread import LoopThread

LOOK = Look("customer")


async def ask(commands: Commands, command: Command = LOOK) -> Reply:
    """Send a command from a loop of another thread."""
    other = LoopThread("other")
    other.start()
    try:
        return await other.run(commands.send("call", command))
    finally:
        await other.stop()


async def test_command_is_carried_out_on_the_loop_that_serves() -> None:
    asked: list[tuple[str, Command, int]] = []

    def handle(call_id: str, command: Command) -> Reply:
        asked.append((call_id, command, threading.get_ident()))
        return LiveCall("live", held_ms=20)

    commands = Commands()
    commands.serve(handle)
    assert await ask(commands) == LiveCall("live", held_ms=20)
    assert asked == [("call", LOOK, threading.get_ident())]


async def test_command_works_on_its_own_loop_too() -> None:
    commands = Commands()
    commands.serve(lambda call_id, command: Done())
    assert await commands.send("call", LOOK) == Done()


@pytest.mark.parametrize("error", [CallLost("over"), CommandRefused("why", "because")])
async def test_error_comes_back(error: Exception) -> None:
    def handle(call_id: str, command: Command) -> Reply:
        raise error

    commands = Commands()
    commands.serve(handle)
    with pytest.raises(type(error)) as caught:
        await ask(commands)
    assert caught.value is error


async def test_call_is_lost_when_nobody_serves() -> None:
    commands = Commands()
    with pytest.raises(CallLost):
        await commands.send("call", LOOK)
    commands.serve(lambda call_id, command: Done())
    commands.stop()
    with pytest.raises(CallLost):
        await commands.send("call", LOOK)


async def test_call_is_lost_with_the_loop_that_served_it() -> None:
    commands = Commands()
    other = LoopThread("other")
    other.start()

    async def serve() -> None:
        commands.serve(lambda call_id, command: Done())

    await other.run(serve())
    await other.stop()
    with pytest.raises(CallLost):
        await commands.send("call", LOOK)


async def test_command_that_had_not_begun_in_time_is_not_done() -> None:
    asked: list[str] = []

    def handle(call_id: str, command: Command) -> Reply:
        asked.append(call_id)
        return Done()

    commands = Commands(timeout_s=0.02)
    commands.serve(handle)
    other = LoopThread("other")
    other.start()
    sent = asyncio.run_coroutine_threadsafe(commands.send("call", LOOK), other._loop)
    with pytest.raises(CommandTimeout):
        sent.result(5)  # holds up the loop that should carry it out
    await asyncio.sleep(0.01)
    assert asked == []
    await other.stop()
