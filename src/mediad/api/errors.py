"""What the API answers when it cannot do what it was asked: ``{"error": {"reason", "message",
"details"}}``, with a reason for programs and a message for people; or, to a dialplan, nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel, JsonValue
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from mediad.errors import DatabaseUnavailable

__all__ = [
    "REASON_HEADER",
    "REQUEST_ID_HEADER",
    "ApiError",
    "ErrorBody",
    "database_unavailable",
    "error_answer",
    "invalid",
    "not_found",
    "register_errors",
]

logger = logging.getLogger(__name__)

REASON_HEADER = "X-Mediad-Reason"
"""What is wrong, where the body says nothing."""

REQUEST_ID_HEADER = "X-Request-Id"
"""What a request is called in its answer, the log and the audit log."""

_FOR_DIALPLANS = "/v1/dialplan/"
_REASONS = {404: "not_found", 405: "method_not_allowed"}
_MAX_ERRORS = 100


class ErrorDetails(BaseModel):
    """What went wrong."""

    reason: str
    """A word for programs, as not_found."""
    message: str
    """A sentence for people."""
    details: dict[str, JsonValue] = {}


class ErrorBody(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetails


class ApiError(Exception):
    """Ends a request with an error.

    Args:
        status: The HTTP status.
        reason: A word for programs.
        message: A sentence for people: what to do.
        details: More for programs.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, JsonValue] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(
            error=ErrorDetails(reason=reason, message=message, details=dict(details or {}))
        )
        self.headers = dict(headers or {})


def not_found(what: str, id: str) -> ApiError:
    """Return the error for what this customer does not have, whether or not another one has it."""
    return ApiError(404, "not_found", f"there is no {what} {id}")


def database_unavailable() -> ApiError:
    """Return the error for what cannot be known or done before the database answers again."""
    message = "the database does not answer: try again"
    return ApiError(503, "database_unavailable", message, headers={"Retry-After": "5"})


def invalid(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """Return the error for what pydantic found; what was sent is not repeated."""
    shown: list[tuple[list[JsonValue], str]] = [
        ([_text(part) for part in error["loc"]], _text(error["msg"]))
        for error in errors[:_MAX_ERRORS]
    ]
    details: list[JsonValue] = [{"loc": loc, "msg": message} for loc, message in shown]
    loc, message = shown[0]
    where = ".".join(str(part) for part in loc)
    return ApiError(422, "invalid", f"{where}: {message}", {"errors": details})


def error_answer(error: ApiError, scope: Scope) -> Response:
    """Return an error as it is told to who asked, and note it in the request's state. A dialplan
    takes any body for the text that it wanted: it gets 200 and none, and the reason in a header.
    """
    scope.setdefault("state", {})["error"] = error
    if scope["path"].startswith(_FOR_DIALPLANS):
        headers = {REASON_HEADER: error.body.error.reason, **error.headers}
        return PlainTextResponse("", headers=headers)
    return JSONResponse(error.body.model_dump(), error.status, error.headers)


def register_errors(app: FastAPI) -> None:
    """Let the application answer with errors of this form."""

    @app.exception_handler(ApiError)
    async def answer(request: Request, exc: ApiError) -> Response:
        return _answer(request, exc)

    @app.exception_handler(RequestValidationError)
    async def answer_invalid(request: Request, exc: RequestValidationError) -> Response:
        return _answer(request, invalid(exc.errors()))

    @app.exception_handler(HTTPException)
    async def answer_http(request: Request, exc: HTTPException) -> Response:
        reason = _REASONS.get(exc.status_code, "bad_request")
        error = ApiError(exc.status_code, reason, str(exc.detail), headers=exc.headers)
        return _answer(request, error)

    @app.exception_handler(ClientDisconnect)
    async def answer_nobody(request: Request, exc: ClientDisconnect) -> Response:
        return Response(status_code=400)  # the client left within its body: nobody reads this

    @app.exception_handler(DatabaseUnavailable)
    async def answer_unavailable(request: Request, exc: DatabaseUnavailable) -> Response:
        return _answer(request, database_unavailable())

    @app.exception_handler(Exception)
    async def answer_internal(request: Request, exc: Exception) -> Response:
        # Without its text, which is for the log: the server writes it there. No middleware sees
        # this answer.
        headers = {}
        if begun := getattr(request.state, "begun", None):
            logger.error("the request %s failed", begun.request_id)
            headers[REQUEST_ID_HEADER] = begun.request_id
        message = "an error of our own: it is in the log"
        return _answer(request, ApiError(500, "internal", message, headers=headers))


def _text(part: object) -> str:
    """Return a text as it can be sent: JSON may hold half a character, UTF-8 may not."""
    return str(part).encode("utf-8", "replace").decode()


def _answer(request: Request, error: ApiError) -> Response:
    return error_answer(error, request.scope)
