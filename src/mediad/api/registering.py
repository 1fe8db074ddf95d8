"""Registering calls, and the way to them: what `calls` and `dialplan` have in common."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from mediad.api.errors import ApiError, not_found
from mediad.api.services import Services
from mediad.bus.commands import Command, Expect, LiveCall, Look, Reply
from mediad.errors import CallLost, CommandError, CommandRefused, CommandTimeout
from mediad.store.calls import Call
from mediad.store.routing import NoRoute, route
from mediad.store.rows import check_free_json
from mediad.store.types import NEVER

__all__ = ["CallView", "NewCall", "look", "new_call", "register", "send"]

MAX_METADATA_BYTES = 16_384

Party = Annotated[str, Field(max_length=255)]

_BUSY = {"max_calls": 503, "stopping": 503}


class NewCall(BaseModel):
    """A call that is about to come."""

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        json_schema_extra={
            "examples": [{"from": "+4930123456", "to": "+4989123456", "metadata": {"queue": "1"}}]
        },
    )

    source: Party = Field("", alias="from")
    """Who calls."""
    destination: Party = Field("", alias="to")
    """Who was called: one of your numbers, whose agent then answers."""
    channel: Annotated[str, Field(max_length=255)] | None = None
    """Asterisk's name of it; kept as metadata."""
    agent_id: Annotated[str, Field(min_length=1, max_length=36)] | None = None
    """The agent that shall answer, whatever was called."""
    number: Party | None = None
    """The number that decides who answers, in place of ``to``."""
    metadata: dict[str, JsonValue] = {}
    """Whatever belongs to the call, up to 16 KiB of JSON."""


class CallView(Call):
    """A call, and how it stands while it lives."""

    live: LiveCall | None = None


async def register(services: Services, customer_id: str, new: NewCall) -> CallView:
    """Route a call and let the media process expect it.

    Raises:
        ApiError: If nobody answers it, or it cannot be taken.
        DatabaseUnavailable: If it cannot be known who answers it.
    """
    metadata = dict(new.metadata)
    if new.channel is not None:
        metadata["channel"] = new.channel
    _check_metadata(metadata)
    called = new.destination if new.number is None else new.number
    try:
        way = await route(services.reads, customer_id, called, new.agent_id)
    except NoRoute as exc:
        raise ApiError(409, exc.reason, str(exc)) from exc
    call_id = str(uuid4())
    expect = Expect(
        customer_id,
        source=new.source,
        destination=new.destination,
        agent_id=way.agent_id,
        number_id=way.number_id,
        agent_config=way.agent_config,
        metadata=metadata or None,
    )
    await send(services, call_id, expect)
    call = _bare_call(call_id, datetime.now(UTC), **_values_of(expect), status="ringing")
    return CallView(**call.model_dump(), live=LiveCall("expected"))


def _check_metadata(metadata: dict[str, Any]) -> None:
    """Refuse what some database does not keep, though it passes for JSON: also NaN, and halves of
    characters.
    """
    try:
        check_free_json(metadata)
        size = len(json.dumps(metadata, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError) as exc:
        raise ApiError(422, "bad_metadata", "metadata is no JSON that can be kept") from exc
    if size > MAX_METADATA_BYTES:
        raise ApiError(422, "metadata_too_large", "metadata may have up to 16 KiB of JSON")


async def send(services: Services, call_id: str, command: Command) -> Reply:
    """Send a command and return its reply.

    Raises:
        ApiError: If it came to nothing.
    """
    try:
        return await services.commands.send(call_id, command)
    except CommandTimeout as exc:
        raise _timed_out(exc) from exc
    except CommandRefused as exc:
        raise ApiError(_BUSY.get(exc.reason, 409), exc.reason, str(exc)) from exc
    except CallLost as exc:
        if await services.reads.call(command.customer_id, call_id) is None:
            raise not_found("call", call_id) from exc
        raise ApiError(409, "call_lost", "the call is over") from exc


async def look(services: Services, customer_id: str, call_id: str) -> LiveCall | None:
    """Return how a call stands; None if the customer has no such call that lives.

    Raises:
        ApiError: If that cannot be known, because its process does not answer.
    """
    try:
        reply = await services.commands.send(call_id, Look(customer_id))
    except CommandTimeout as exc:
        raise _timed_out(exc) from exc
    except CommandError:
        return None
    assert isinstance(reply, LiveCall)
    return reply


async def new_call(
    services: Services, customer_id: str, call_id: str, live: LiveCall
) -> Call | None:
    """Return a call that is on its way to the database."""
    session = await services.sessions.session(call_id)
    if session is None or session.customer_id != customer_id:
        return None
    names = ("direction", "source", "destination", "agent_id", "number_id", "agent_config")
    values = session.model_dump(include={"customer_id", "metadata", *names})
    values["status"] = "ringing" if live.state == "expected" else "in-progress"
    return _bare_call(call_id, session.started_at, **values)


def _timed_out(exc: CommandTimeout) -> ApiError:
    return ApiError(504, "command_timeout", str(exc))


def _values_of(call: Expect) -> dict[str, Any]:
    names = ("customer_id", "direction", "source", "destination", "agent_id", "number_id")
    return {name: getattr(call, name) for name in (*names, "agent_config", "metadata")}


def _bare_call(call_id: str, at: datetime, **values: Any) -> Call:
    """Return a call of which no more is known yet."""
    unknown = dict.fromkeys(Call.model_fields)
    times = {"tm_start": at, "tm_create": at, "tm_update": at, "tm_delete": NEVER}
    return Call.model_validate(unknown | times | {"id": call_id} | values)
