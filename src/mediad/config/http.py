"""What is around calls: the HTTP port, webhooks, the log."""

from typing import Annotated, Literal

from pydantic import Field

from mediad.config.types import (
    ENDPOINT_LIMITS,
    AllOrNetworks,
    EndpointLimits,
    Host,
    Networks,
    Port,
    Table,
)

__all__ = ["Http", "Log", "Webhooks"]


class Http(Table):
    """The HTTP port: the API, /metrics, /healthz, /readyz."""

    host: Host = "127.0.0.1"
    """Address to bind."""
    port: Port = 8080
    """TCP port; 0 takes a free one."""
    metrics_host: Host = "127.0.0.1"
    """Address to bind for /metrics, when it has a port of its own."""
    metrics_port: Port | None = None
    """TCP port of its own for /metrics, which ``port`` then no longer has; 0 takes a free one."""
    trusted_proxies: Networks = ()
    """Networks of proxies that are believed whom they ask for (X-Forwarded-For, -Proto), as
    ["10.0.0.5/32"]; empty believes nobody.
    """
    max_requests_per_minute: Annotated[int, Field(ge=0)] = 6000
    """Requests a minute with one access key; one more gets 429. 0 is no limit."""
    endpoint_limits: EndpointLimits = ENDPOINT_LIMITS
    """Requests in 15 minutes with one access key to single endpoints, by ``{resource}:{action}``;
    one more gets 429. 0 is no limit. What is not named has its default.
    """
    max_running: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Requests of the API at work at once; 100 more wait, and what comes then gets 503."""


class Webhooks(Table):
    """POST requests that tell customers' own servers what happened."""

    timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 10.0
    """Give a request up that has no answer after this long, in seconds; it is tried again later."""
    allow_private: AllOrNetworks = False
    """Private networks that webhooks may go to, as ["10.0.0.0/8"], or true for all: whoever sets a
    webhook reaches what this machine can.
    """
    header_prefix: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")] = "X-VoIPBIN"
    """How the headers -Signature, -Timestamp and -Event begin."""


class Log(Table):
    """Logging, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level written."""
    format: Literal["console", "json"] = "console"
    """console: lines for people; json: one object a line."""
