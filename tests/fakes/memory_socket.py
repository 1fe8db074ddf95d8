"""A service's end of no network, for virtual clocks, in the place of `AgentSocket`."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from mediad.wire import service
from mediad.wire.service import FromMediad, Malformed

__all__ = ["MemorySocket"]


class MemorySocket(ABC):
    """One connection; ``take`` is what the service does."""

    def __init__(
        self,
        on_open: Callable[[], None],
        on_message: Callable[[bytes], bool],
        *_: object,
        **__: object,
    ) -> None:
        self._on_message = on_message
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.is_open = True

    @abstractmethod
    def take(self, asked: FromMediad) -> None:
        """Do what mediad asks for."""

    def send_control(self, message: bytes) -> bool:
        """Have it done."""
        asked = service.from_mediad(message)
        assert asked is not None
        assert not isinstance(asked, Malformed)
        self.take(asked)
        return True

    def deliver(self, *messages: bytes) -> None:
        """Let mediad have what the service says, unless the connection has ended."""
        for message in messages if self.is_open else ():
            self._on_message(message)

    def close(self) -> None:
        """End."""
        self.is_open = False
        if not self._end.done():
            self._end.set_result(1000)

    async def closed(self) -> int:
        """Wait for the end."""
        return await self._end
