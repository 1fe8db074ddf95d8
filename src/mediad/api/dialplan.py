"""Two endpoints for Asterisk's dialplan, which can only post a form and read a text (func_curl).

The answer is always 200 with a text and no newline. If something is wrong it is empty, and the
reason stands in a header, ``X-Mediad-Reason``: there an error's body would look like an answer.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError

from mediad.api.access import Operator
from mediad.api.calls import CallId
from mediad.api.endpoint_limits import limited
from mediad.api.errors import REASON_HEADER, ApiError, error_answer, not_found
from mediad.api.registering import NewCall, register
from mediad.api.services import Services, ServicesOf
from mediad.bus.commands import Ended, How
from mediad.errors import CommandError, CommandRefused, DatabaseUnavailable

__all__ = ["router"]

logger = logging.getLogger(__name__)

_MAX_FORM_BYTES = 8192
_FIELDS = frozenset(("from", "to", "channel", "agent_id", "number"))

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Route(APIRoute):
    """Answers 200 whatever happens. What does not get as far as this, `error_answer` does so."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ApiError as exc:
                return error_answer(exc, request.scope)
            except (RequestValidationError, ValidationError):
                return _nothing("bad_request")
            except DatabaseUnavailable:
                return _nothing("database_unavailable")
            except Exception:  # a request's top
                logger.exception("a request of the dialplan failed")
                return _nothing("internal_error")

        return answer


router = APIRouter(
    prefix="/dialplan",
    tags=["dialplan"],
    route_class=_Route,
    default_response_class=PlainTextResponse,
)

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; empty if there is none, with the reason in X-Mediad-Reason: "
        "unauthorized, forbidden, rate_limited, not_found, …",
        "headers": {REASON_HEADER: {"schema": {"type": "string"}}},
    },
    "default": {"description": "Not of mediad, but of what stands before it, as a proxy does"},
}


@router.post(
    "/calls",
    dependencies=[limited("calls:create")],
    responses=_ANSWER,
    openapi_extra={
        "requestBody": {
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "properties": {name: {"type": "string"} for name in sorted(_FIELDS)},
                        "additionalProperties": {"type": "string"},
                    },
                    "example": {"from": "+4930123456", "to": "+4989123456", "channel": "PJSIP/100"},
                }
            }
        }
    },
)
async def register_call(request: Request, access: Operator, services: ServicesOf) -> Response:
    """Register an inbound call and answer its UUID, for AudioSocket(). The form has ``from``,
    ``to``, ``channel``, perhaps ``agent_id`` or ``number``; what else it has becomes metadata.
    """
    form = await _read_form(request)
    metadata = {name: value for name, value in form.items() if name not in _FIELDS}
    known = {name: value for name, value in form.items() if name in _FIELDS and value}
    new = NewCall.model_validate(known | {"metadata": metadata})
    return PlainTextResponse((await register(services, access.customer_id, new)).id)


@router.get("/calls/{call_id}/next", responses=_ANSWER)
async def get_next(call_id: CallId, access: Operator, services: ServicesOf) -> Response:
    """Tell what to do after AudioSocket() returned: ``hangup`` when the conversation has come to
    its end, ``continue`` when it has not and the caller should get something else: no agent could
    be had, it broke off, or its time was up.
    """
    cause = await _cause_of_end(services, access.customer_id, call_id)
    return PlainTextResponse("hangup" if cause == "normal_clearing" else "continue")


async def _cause_of_end(services: Services, customer_id: str, call_id: str) -> str:
    try:
        end = await services.commands.send(call_id, How(customer_id))
        assert isinstance(end, Ended)
        return end.hangup_cause
    except CommandRefused as exc:
        raise ApiError(409, exc.reason, str(exc)) from exc
    except CommandError as exc:  # its process may be gone, or have forgotten it
        call = await services.reads.call(customer_id, call_id)
        if call is None or call.hangup_cause is None:
            raise not_found("call", call_id) from exc
        return call.hangup_cause


async def _read_form(request: Request) -> dict[str, str]:
    # By hand: with a header of its own, func_curl does not say that it sends a form.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise ApiError(413, "too_large", f"a form may have {_MAX_FORM_BYTES} bytes")
    try:
        fields = parse_qsl(
            body.decode("ascii", "replace"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=50,
        )
    except ValueError as exc:
        raise ApiError(422, "bad_request", "the form has too many fields") from exc
    return dict(fields)


def _nothing(reason: str) -> Response:
    return PlainTextResponse("", headers={REASON_HEADER: reason})
