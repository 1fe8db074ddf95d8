"""Calls: register one that is about to come, look at live and past ones, have a say in live ones.

A live call belongs to the process that has its sockets. It is reached by commands only, with 2 s to
answer (504 ``command_timeout``); one that is over answers 409 ``call_lost``.
"""

import asyncio
from datetime import UTC, datetime
from io import BytesIO
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from mediad.api.access import Operator, Viewer
from mediad.api.endpoint_limits import limited
from mediad.api.errors import ApiError, ErrorBody, not_found
from mediad.api.lists import ID_PATTERN
from mediad.api.playing import read_playable
from mediad.api.registering import CallView, NewCall, look, new_call, register, send
from mediad.api.services import Services, ServicesOf
from mediad.bus.commands import (
    HangUp,
    Inject,
    Mute,
    Play,
    Say,
    Who,
)
from mediad.store import calls, transcripts
from mediad.store.calls import Call, CallFilter
from mediad.store.changes import ENDED
from mediad.store.pages import DEFAULT_LIMIT, MAX_LIMIT
from mediad.store.transcripts import Transcript
from mediad.wav import WavError

__all__ = ["CallId", "router"]

router = APIRouter(prefix="/calls", tags=["calls"])

CallId = Annotated[
    str, Path(min_length=1, max_length=36, pattern=ID_PATTERN, description="The call's UUID.")
]
Moment = Annotated[
    AwareDatetime,
    Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=datetime(9000, 1, 1, tzinfo=UTC)),
]
Status = Literal[
    "initiated",
    "ringing",
    "in-progress",
    "completed",
    "failed",
    "no-answer",
    "busy",
    "canceled",
]

_NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}
_LOOK = _NOT_FOUND | {504: {"model": ErrorBody, "description": "The call did not answer in time"}}
_COMMAND = _LOOK | {
    409: {"model": ErrorBody, "description": "The call is over, or cannot do that"},
}


class CallList(BaseModel):
    """Calls, newest first."""

    result: list[Call]
    next_page_token: str | None


class TranscriptOfCall(BaseModel):
    """What was said, in its order."""

    result: list[Transcript]
    text: str
    """The same as one text, a line for each."""
    next_page_token: str | None


class Words(BaseModel):
    """A text to speak."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "One moment, please."}]}
    )

    text: Annotated[str, Field(min_length=1, max_length=2000)]


class Injection(BaseModel):
    """A text for the agent."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"text": "The order is ready."}]}
    )

    text: Annotated[str, Field(min_length=1, max_length=4000)]
    run_immediately: bool = True
    """Whether the agent answers at once, and stops what it is saying."""


class Prompt(BaseModel):
    """One of the prompts of ``ai.prompts``."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"prompt": "hold"}]})

    prompt: Annotated[str, Field(min_length=1, max_length=64)]


class Played(BaseModel):
    """What is played."""

    duration_ms: int


class Muting(BaseModel):
    """Whose audio is replaced by silence."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"who": "caller"}]})

    who: Who = "caller"
    """caller: the agent hears silence, but still digits; agent: the caller hears silence, but still
    what is played by the API."""


@router.post(
    "",
    status_code=201,
    dependencies=[limited("calls:create")],
    responses=_COMMAND | {503: {"model": ErrorBody}},
)
async def register_call(new: NewCall, access: Operator, services: ServicesOf) -> CallView:
    """Register an inbound call. Its id is the UUID that its AudioSocket must bring, once and within
    60 s; then it is answered by the called number's agent as it is configured now.
    """
    return await register(services, access.customer_id, new)


@router.get("", responses={422: {"model": ErrorBody}})
async def list_calls(
    access: Viewer,
    services: ServicesOf,
    status: Status | None = None,
    direction: Literal["inbound", "outbound"] | None = None,
    number: Annotated[str | None, Query(max_length=255, description="From or to.")] = None,
    agent_id: Annotated[str | None, Query(max_length=36)] = None,
    since: Annotated[Moment | None, Query(description="Created then or later.")] = None,
    until: Annotated[Moment | None, Query(description="Created before.")] = None,
    page_token: Annotated[str | None, Query(max_length=200)] = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
) -> CallList:
    """List calls, newest first, live and past ones, by what is known of them."""
    which = CallFilter(status, direction, number, agent_id, since, until)
    try:
        async with services.database.read() as connection:
            page = await calls.list_calls(
                connection, access.customer_id, which, token=page_token, limit=page_size
            )
    except ValueError as exc:
        raise ApiError(422, "bad_page_token", str(exc)) from exc
    return CallList(result=page.items, next_page_token=page.next_token)


@router.get("/{call_id}", responses=_LOOK)
async def get_call(call_id: CallId, access: Viewer, services: ServicesOf) -> CallView:
    """Return a call; ``live`` says how it stands, as long as it lives."""
    customer_id = access.customer_id
    call = await services.reads.call(customer_id, call_id)
    live = None
    if call is None or call.status not in ENDED:
        live = await look(services, customer_id, call_id)
    if call is None and live is not None:
        call = await new_call(services, customer_id, call_id, live)
    if call is None:
        raise not_found("call", call_id)
    return CallView(**call.model_dump(), live=live)


@router.get("/{call_id}/transcript", responses=_LOOK | {422: {"model": ErrorBody}})
async def get_transcript(
    call_id: CallId,
    access: Viewer,
    services: ServicesOf,
    page_token: Annotated[str | None, Query(max_length=200)] = None,
    page_size: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = MAX_LIMIT,
) -> TranscriptOfCall:
    """Return what was said on a call, live or past."""
    await _check_is_there(services, access.customer_id, call_id)
    try:
        async with services.database.read() as connection:
            page = await transcripts.list_of_call(
                connection, access.customer_id, call_id, token=page_token, limit=page_size
            )
    except ValueError as exc:
        raise ApiError(422, "bad_page_token", str(exc)) from exc
    return TranscriptOfCall(
        result=page.items, text=transcripts.text(page.items), next_page_token=page.next_token
    )


@router.post("/{call_id}/hangup", status_code=204, responses=_COMMAND)
async def hang_up(call_id: CallId, access: Operator, services: ServicesOf) -> Response:
    """Hang up a call: its dialplan goes on. One that has not come yet is canceled."""
    await send(services, call_id, HangUp(access.customer_id))
    return Response(status_code=204)


@router.post("/{call_id}/say", status_code=204, responses=_COMMAND)
async def say(call_id: CallId, words: Words, access: Operator, services: ServicesOf) -> Response:
    """Speak a text to the caller. Calls whose agent makes its own speech answer 409
    ``not_supported``: use inject or play.
    """
    await send(services, call_id, Say(access.customer_id, words.text))
    return Response(status_code=204)


@router.post(
    "/{call_id}/play",
    responses=_COMMAND | {415: {"model": ErrorBody}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "audio/wav": {"schema": {"type": "string", "format": "binary"}},
                "application/json": {"schema": Prompt.model_json_schema()},
            },
        }
    },
)
async def play(call_id: CallId, request: Request, access: Operator, services: ServicesOf) -> Played:
    """Play a WAV file, or one of the prompts of ``ai.prompts``, after what is queued for the
    caller: up to 30 s and 2 MiB, any usual rate. Barge-in drops it like the agent's words. Where
    mediad takes the turns it is a turn of the agent's: it waits until nobody speaks.
    """
    body = await request.body()
    match request.headers.get("content-type", "").partition(";")[0].strip().lower():
        case "audio/wav" | "audio/x-wav" | "audio/wave" | "application/octet-stream":
            source: Any = BytesIO(body)
        case "application/json":
            source = _prompt(services, body)
        case other:
            raise ApiError(415, "unsupported_media_type", f"{other!r} is no audio/wav")
    await _check_is_there(services, access.customer_id, call_id)  # before the work
    try:
        playable = await asyncio.to_thread(read_playable, source)
    except (OSError, WavError) as exc:
        raise ApiError(422, "bad_audio", f"this cannot be played: {exc}") from exc
    await send(services, call_id, Play(access.customer_id, *playable))
    return Played(duration_ms=playable.duration_ms)


@router.post("/{call_id}/inject", status_code=204, responses=_COMMAND)
async def inject(
    call_id: CallId, words: Injection, access: Operator, services: ServicesOf
) -> Response:
    """Tell the agent a text as if the caller had written it (RTVI ``send-text``)."""
    await send(services, call_id, Inject(access.customer_id, words.text, words.run_immediately))
    return Response(status_code=204)


@router.post("/{call_id}/mute", status_code=204, responses=_COMMAND)
async def mute(call_id: CallId, muting: Muting, access: Operator, services: ServicesOf) -> Response:
    """Replace somebody's audio by silence. What the agent has said and the caller has not heard is
    dropped.
    """
    await send(services, call_id, Mute(access.customer_id, muting.who))
    return Response(status_code=204)


@router.post("/{call_id}/unmute", status_code=204, responses=_COMMAND)
async def unmute(
    call_id: CallId, muting: Muting, access: Operator, services: ServicesOf
) -> Response:
    """Let somebody be heard again, after mute; it does no harm if they were."""
    await send(services, call_id, Mute(access.customer_id, muting.who, muted=False))
    return Response(status_code=204)


async def _check_is_there(services: Services, customer_id: str, call_id: str) -> None:
    if (
        await services.reads.call(customer_id, call_id) is None
        and await look(services, customer_id, call_id) is None
    ):
        raise not_found("call", call_id)


def _prompt(services: Services, body: bytes) -> Any:
    try:
        name = Prompt.model_validate_json(body).prompt
    except ValidationError as exc:
        raise ApiError(422, "bad_request", 'the body is no {"prompt": "name"}') from exc
    path = services.settings.ai.prompts.get(name)
    if path is None:
        raise ApiError(422, "unknown_prompt", f"there is no {name!r} in ai.prompts")
    return path
