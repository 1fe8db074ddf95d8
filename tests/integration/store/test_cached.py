"""Reads through the cache: whose rows they give, and what they make of what they cannot read."""

from mediad import config
from mediad.cache import open_cache
from mediad.metrics import Metrics
from mediad.store import numbers
from mediad.store.audit import MEDIAD
from mediad.store.cached import CachedReads
from mediad.store.database import Database
from mediad.store.numbers import NumberFields


async def test_what_another_version_left_in_the_cache_is_read_anew(database: Database) -> None:
    cache = open_cache(config.Redis(), config.Cache(environment="test"), Metrics())
    reads = CachedReads(cache, database)
    async with database.write() as connection:
        fields = NumberFields(number="+4930123")
        number = await numbers.create(connection, "default", fields, MEDIAD)
    await cache.set(cache.keys.number("+4930123"), b'{"id": 7, "number_of_a_later_version": true}')
    assert await reads.called("+4930123") == number
    assert await reads.called("+4930123") == number
    await cache.close()
