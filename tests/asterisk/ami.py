"""A small client of Asterisk's manager interface (AMI): actions, their answers, and events."""

import asyncio
import itertools
from typing import Self

Message = dict[str, str]
"""One AMI message: its headers. A header that comes twice has its lines joined by newlines."""


class AmiError(Exception):
    """Asterisk answered an action with an error."""


class Ami:
    """A logged-in AMI connection.

    It keeps every event, so ``wait_event`` also finds one that came before it was asked for.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._answers: dict[str, asyncio.Future[Message]] = {}
        self._changed = asyncio.Condition()
        self.events: list[Message] = []
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, host: str, port: int, username: str, secret: str) -> Self:
        """Log in and wait until Asterisk says that it has finished starting."""
        reader, writer = await asyncio.open_connection(host, port)
        await reader.readline()  # the greeting
        ami = cls(reader, writer)
        try:
            await ami.action("Login", Username=username, Secret=secret)
            await ami.wait_event("FullyBooted")
        except BaseException:
            await ami.close()
            raise
        return ami

    async def close(self) -> None:
        """Close the connection."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._writer.close()

    async def action(self, name: str, **headers: str) -> Message:
        """Send an action and return Asterisk's answer to it."""
        action_id = str(next(self._ids))
        answer = asyncio.get_running_loop().create_future()
        self._answers[action_id] = answer
        lines = {"Action": name, "ActionID": action_id, **headers}
        self._writer.write("".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n")
        async with asyncio.timeout(10):
            message: Message = await answer
        if message["Response"] not in {"Success", "Follows"}:
            raise AmiError(f"{name}: {message.get('Message')} {message.get('Output', '')}")
        return message

    async def command(self, line: str) -> str:
        """Run a command of Asterisk's console and return what it prints."""
        return (await self.action("Command", Command=line)).get("Output", "")

    async def originate(self, channel: str, application: str, data: str = "") -> None:
        """Call ``channel`` and run a dialplan application there once it answers."""
        await self.action(
            "Originate", Channel=channel, Application=application, Data=data, Async="true"
        )

    def find_event(self, name: str, **headers: str) -> Message | None:
        """Return the first event of that name with these headers, if it has come."""
        wanted = {"Event": name, **headers}.items()
        return next((event for event in self.events if wanted <= event.items()), None)

    async def wait_event(self, name: str, *, timeout_s: float = 10.0, **headers: str) -> Message:
        """Return the first event of that name with these headers, also one from the past."""
        async with asyncio.timeout(timeout_s), self._changed:
            while (event := self.find_event(name, **headers)) is None:
                await self._changed.wait()
        return event

    async def _read(self) -> None:
        message: Message = {}
        while line := await self._reader.readline():
            name, _, value = line.decode(errors="replace").rstrip("\r\n").partition(": ")
            if name:
                message[name] = f"{message[name]}\n{value}" if name in message else value
                continue
            await self._dispatch(message)
            message = {}

    async def _dispatch(self, message: Message) -> None:
        if "Event" in message:
            async with self._changed:
                self.events.append(message)
                self._changed.notify_all()
        elif (answer := self._answers.pop(message.get("ActionID", ""), None)) and not answer.done():
            answer.set_result(message)
