"""Access keys that were looked up, for some seconds: so that no request needs the database."""

import time
from collections import OrderedDict

from mediad.api.limits import Windows
from mediad.store import accesskeys, customers
from mediad.store.accesskeys import AccessKey, hash_key
from mediad.store.database import Database
from mediad.store.types import utc_now

__all__ = ["Keyring"]

_KEEP_S = 5.0
_MAX_KEYS = 10_000


class Keyring:
    """Good keys by their hash, and which customers there are."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, tuple[float, AccessKey]] = OrderedDict()
        self._customers: OrderedDict[str, float] = OrderedDict()
        self._generation = 0
        self.requests = Windows()
        """By key."""
        self.failures = Windows()
        """By address."""

    def known(self, key: str) -> AccessKey | None:
        """Return a good key that was looked up a moment ago."""
        until, row = self._keys.get(hash_key(key), (0.0, None))
        return row if time.monotonic() < until and _is_good(row) else None

    def was_good(self, key: str) -> bool:
        """Return whether a key was good when it was last looked up: somebody's wrong keys from the
        same address do not lock it out.
        """
        return hash_key(key) in self._keys

    async def look_up(self, database: Database, key: str) -> AccessKey | None:
        """Return a good key.

        Raises:
            DatabaseUnavailable: If that cannot be known.
        """
        hashed, generation = hash_key(key), self._generation
        async with database.read() as connection:
            row = await accesskeys.find(connection, hashed)
        if not _is_good(row):
            self._keys.pop(hashed, None)
            return None
        assert row is not None
        if generation == self._generation:  # else it may have been revoked meanwhile
            self._keys[hashed] = (time.monotonic() + _KEEP_S, row)
            self._keys.move_to_end(hashed)
            if len(self._keys) > _MAX_KEYS:
                self._keys.popitem(last=False)
        return row

    async def has_customer(self, database: Database, customer_id: str) -> bool:
        """Return whether there is such a customer."""
        if time.monotonic() < self._customers.get(customer_id, 0.0):
            return True
        generation = self._generation
        async with database.read() as connection:
            found = await customers.get(connection, customer_id) is not None
        if found and generation == self._generation:
            self._customers[customer_id] = time.monotonic() + _KEEP_S
            if len(self._customers) > _MAX_KEYS:
                self._customers.popitem(last=False)
        return found

    def forget(self) -> None:
        """Look all of them up again: one was revoked or changed."""
        self._generation += 1
        for hashed, (_, row) in self._keys.items():
            self._keys[hashed] = (0.0, row)
        self._customers.clear()


def _is_good(row: AccessKey | None) -> bool:
    return row is not None and (row.tm_expire is None or utc_now() < row.tm_expire)
