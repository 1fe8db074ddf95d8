"""An HTTP API like OpenAI's, as far as chat completions that are streamed go, on bare TCP."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["DONE", "FakeApi", "chunk", "run_api", "usage"]

DONE = "[DONE]"


def chunk(
    content: str | None = None,
    *,
    finish: str | None = None,
    tool_calls: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Return one event's data."""
    delta = {"content": content, "tool_calls": list(tool_calls) or None}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    kind = "chat.completion.chunk"
    return {"id": "c", "object": kind, "created": 0, "model": "m", "choices": [choice]}


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """Return the event that comes last."""
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": 0}
    return chunk() | {"choices": [], "usage": counts}


@dataclass
class FakeApi:
    """What it answers, and what it was asked."""

    events: list[Any] = field(default_factory=list)
    """Data of the events; a number waits so many seconds, the string [DONE] is the end."""
    status: int = 200
    refuses_tools: bool = False
    """Whether it answers 400 to whoever offers some."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorization: list[str] = field(default_factory=list)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether no request is being answered."""
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, then close."""
        self.idle.clear()
        try:
            await self._read(reader)
            is_refused = self.refuses_tools and "tools" in self.requests[-1]
            if self.status != 200 or is_refused:
                why = "this model does not support tools" if is_refused else "no"
                body = json.dumps({"error": {"message": why, "type": "x", "code": None}})
                status = 400 if is_refused else self.status
                head = f"HTTP/1.1 {status} Error\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            else:
                await self._stream(reader, writer)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.idle.set()
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        assert head[0].startswith("post /v1/chat/completions ")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        self.authorization.append(headers["authorization"])
        self.requests.append(json.loads(await reader.readexactly(int(headers["content-length"]))))

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        writer.write(b"Connection: close\r\n\r\n")
        for event in self.events:
            if isinstance(event, float):
                # Waits, or until the client goes.
                gone = asyncio.create_task(reader.read(1))
                await asyncio.wait([gone], timeout=event)
                if gone.done():
                    return
                gone.cancel()
                continue
            data = event if isinstance(event, str) else json.dumps(event)
            writer.write(f"data: {data}\n\n".encode())
            await writer.drain()


@asynccontextmanager
async def run_api() -> AsyncIterator[FakeApi]:
    """Serve it; its ``url`` ends in /v1."""
    api = FakeApi()
    async with await asyncio.start_server(api.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        api.url = f"http://127.0.0.1:{port}/v1"
        yield api
