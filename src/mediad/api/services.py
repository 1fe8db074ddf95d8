"""What the API works with. Every endpoint gets it as `ServicesOf`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from mediad.api.keyring import Keyring
from mediad.bus.bus import Bus
from mediad.bus.commands import Commands
from mediad.cache.cache import Cache
from mediad.config import Settings
from mediad.metrics import Metrics
from mediad.store.cached import CachedReads
from mediad.store.database import Database
from mediad.store.sessions import Sessions

__all__ = ["Services", "ServicesOf"]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything that an endpoint may use, on the control loop."""

    settings: Settings
    bus: Bus
    commands: Commands
    """The way to live calls."""
    metrics: Metrics
    database: Database
    cache: Cache
    reads: CachedReads
    sessions: Sessions
    readiness: Callable[[], Mapping[str, str]]
    """What keeps mediad from taking calls, as part → reason; empty when it is ready."""
    health: Callable[[], Mapping[str, str]]
    """What does not work as it should, as part → reason; calls may go on without it."""
    keys: Keyring = field(default_factory=Keyring)
    """Access keys that were looked up."""


def _services(connection: HTTPConnection) -> Services:
    services: Services = connection.app.state.services
    return services


ServicesOf = Annotated[Services, Depends(_services)]
