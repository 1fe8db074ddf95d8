"""Who asks, and what they may do. `KeyCheck` finds out who asks before anything else is done; every
endpoint under /v1 names the role it needs by the type of its first argument: `Viewer`, `Operator`,
`Admin` or `Root`.
"""

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from mediad.api.errors import ApiError, database_unavailable
from mediad.api.limits import BUSY, MAX_WAITING, Rate, now_s, refuse
from mediad.api.request_ids import Begun
from mediad.api.services import Services
from mediad.errors import DatabaseUnavailable
from mediad.store.accesskeys import AccessKey, Role
from mediad.store.audit import MAX_IP, MAX_USER_AGENT, Actor

__all__ = [
    "CUSTOMER_HEADER",
    "REFUSALS",
    "Access",
    "Admin",
    "KeyCheck",
    "Operator",
    "Role",
    "Root",
    "Viewer",
    "authenticate",
    "check_role",
    "check_still_good",
    "needs_key",
]

_RANKS: dict[Role, int] = {"viewer": 0, "operator": 1, "admin": 2, "root": 3}
"""Each may do what those before it may.

    viewer      read what the customer has
    operator    and have a say in calls: register, hang up, speak, redeliver
    admin       and change agents, numbers, flows, webhooks and access keys
    root        and make, change and delete customers, and act for any of them
"""

CUSTOMER_HEADER = "X-Mediad-Customer"

_MAX_KEY = 200
_MAX_FAILURES = 20  # a minute, from one address

_GivenAlone = Annotated[
    str | None,
    Security(
        APIKeyHeader(
            name="AccessKey",
            scheme_name="AccessKey",
            description="An access key, as `mediad keys create` prints it. With one of the role "
            f"root the header `{CUSTOMER_HEADER}: <id>` says for which customer it acts.",
            auto_error=False,
        )
    ),
]
_GivenAsBearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(
        HTTPBearer(
            scheme_name="Bearer",
            description="The same access key, as `Authorization: Bearer <key>`.",
            auto_error=False,
        )
    ),
]

REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {
        "description": "There is no good access key",
        "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
    },
    403: {
        "description": "The access key has too low a role for this, may not be used from this "
        "address, or not for this customer",
    },
    429: {
        "description": "Too many requests with this access key in this minute, or in 15 minutes to "
        "an endpoint with a limit of its own; or without a good key from this address in this "
        "minute",
        "headers": {
            "Retry-After": {"description": "In seconds", "schema": {"type": "integer"}},
        },
    },
}
"""How who may not is answered, as the OpenAPI has it."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who asks, once the access key was found good."""

    customer_id: str
    """Whose things are meant: every query is about this customer."""
    key_id: str
    """The access key."""
    role: Role
    own_customer_id: str
    """Whose the access key is: somebody else if root acts for a customer."""
    actor: Actor
    """The same for the audit log."""


class KeyCheck:
    """Refuses whoever has no good key before anything of a body is read: to hold it takes memory
    that others need, and to parse it the interpreter that calls share.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and needs_key(scope):
            error = await self._check(HTTPConnection(scope))
            if error is not None:
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _check(self, connection: HTTPConnection) -> ApiError | None:
        """Note who asks in the request's state; return what is wrong with that."""
        if self._waiting >= MAX_WAITING:  # for the database: what was looked up waits for nothing
            return BUSY
        self._waiting += 1
        try:
            connection.state.access = await authenticate(connection)
        except ApiError as exc:
            return exc
        except DatabaseUnavailable:
            return database_unavailable()
        finally:
            self._waiting -= 1
        return None


def needs_key(scope: Scope) -> bool:
    """Return whether a request is for the API; what else there is tells everybody, and takes no
    body.
    """
    return str(scope["path"]).startswith("/v1/")


async def authenticate(connection: HTTPConnection) -> Access:
    """Return who asks, of a request or of a WebSocket's handshake. Whose key it is, is noted in its
    state before it is known whether it may be used: a refusal is for that customer's audit log.

    Raises:
        ApiError: 401 without a good key, 403 from an address that the key does not allow, 429 when
            it asks too often.
        DatabaseUnavailable: If the key cannot be looked up.
    """
    services: Services = connection.app.state.services
    address = connection.client.host if connection.client else ""
    row = await _find(services, connection, address)
    actor = _actor(connection, row.id, address)
    own = Access(row.customer_id, row.id, row.role, row.customer_id, actor)
    connection.state.access = own
    if not _is_allowed(row, address):
        raise ApiError(403, "forbidden", "the access key may not be used from this address")
    if limit := services.settings.http.max_requests_per_minute:
        rate = services.keys.requests.add(row.id, limit, now_s())
        connection.state.rate = rate
        if rate.remaining < 0:
            raise _too_often("rate_limited", f"{limit} requests a minute are the most", rate)
    return replace(own, customer_id=await _customer_of(services, connection, row))


async def check_still_good(connection: HTTPConnection) -> None:
    """Make sure that who is still there would be let in again. This looks in the database.

    Raises:
        ApiError: 401 or 403 if not.
        DatabaseUnavailable: If that cannot be known.
    """
    services: Services = connection.app.state.services
    key = _key_of(connection)
    row = None if key is None else await services.keys.look_up(services.database, key)
    if row is None:
        raise ApiError(401, "unauthorized", "the access key is good no longer")
    await _customer_of(services, connection, row)


def check_role(access: Access, role: Role) -> None:
    """Make sure that somebody may do what this role may.

    Raises:
        ApiError: 403 if not.
    """
    if _RANKS[access.role] < _RANKS[role]:
        raise ApiError(403, "forbidden", f"this needs an access key of the role {role}")


async def _find(services: Services, connection: HTTPConnection, address: str) -> AccessKey:
    key = _key_of(connection)
    keys = services.keys
    if key is not None and (row := keys.known(key)):
        return row
    rate = keys.failures.add(address, _MAX_FAILURES, now_s(), amount=0)
    if rate.remaining <= 0 and not (key and keys.was_good(key)):
        raise _too_often("too_many_failures", "too many requests without a good key", rate)
    if key is not None:
        if row := await keys.look_up(services.database, key):
            return row
        keys.failures.add(address, _MAX_FAILURES, now_s())
    raise ApiError(
        401,
        "unauthorized",
        "this needs a good access key, as Authorization: Bearer <key> or AccessKey: <key>",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _actor(connection: HTTPConnection, key_id: str, address: str) -> Actor:
    begun: Begun = connection.state.begun  # by `RequestIds`
    user_agent = connection.headers.get("user-agent", "")
    return Actor(
        key_id,
        ip=address[:MAX_IP] or None,
        user_agent=user_agent[:MAX_USER_AGENT] or None,
        request_id=begun.request_id,
        started=begun.at,
    )


def _key_of(connection: HTTPConnection) -> str | None:
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        key = connection.headers.get("accesskey", "")
    key = key.strip()
    return key if 0 < len(key) <= _MAX_KEY else None


def _is_allowed(row: AccessKey, address: str) -> bool:
    if row.allowed_ips is None:
        return True
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket has none
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return any(ip in ip_network(network) for network in row.allowed_ips)


async def _customer_of(services: Services, connection: HTTPConnection, row: AccessKey) -> str:
    wanted = connection.headers.get(CUSTOMER_HEADER)
    if wanted is None or wanted == row.customer_id:
        return row.customer_id
    if row.role != "root":
        raise ApiError(403, "forbidden", "only root acts for other customers")
    if len(wanted) > 36 or not await services.keys.has_customer(services.database, wanted):
        raise ApiError(403, "no_such_customer", "there is no customer to act for by this id")
    return wanted


def _too_often(reason: str, message: str, rate: Rate) -> ApiError:
    return ApiError(429, reason, message, headers={"Retry-After": str(rate.reset_s)})


def _needs(role: Role) -> object:
    # The two ways to give a key stand here for the OpenAPI: `authenticate` reads the headers.
    async def check(
        connection: HTTPConnection, _alone: _GivenAlone, _bearer: _GivenAsBearer
    ) -> Access:
        access: Access = connection.state.access  # by `KeyCheck`
        check_role(access, role)
        return access

    return Depends(check)


Viewer = Annotated[Access, _needs("viewer")]
Operator = Annotated[Access, _needs("operator")]
Admin = Annotated[Access, _needs("admin")]
Root = Annotated[Access, _needs("root")]
