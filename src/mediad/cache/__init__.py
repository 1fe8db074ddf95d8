"""What is kept for a while, in Redis or in the process: copies of rows, and the state of live
calls. Losing any of it costs time, never a call.
"""

from mediad import config
from mediad.cache.cache import Cache
from mediad.cache.keys import Keys
from mediad.cache.memory import MemoryCache
from mediad.cache.redis import RedisCache
from mediad.metrics import Metrics

__all__ = ["open_cache"]


def open_cache(redis: config.Redis, cache: config.Cache, metrics: Metrics) -> Cache:
    """Return the cache that the settings ask for. It serves the running loop until it is closed;
    that Redis cannot be reached is a `Cache.problem`, no error.

    Raises:
        ConfigError: If the address of Redis has options that there are not.
    """
    keys = Keys(cache.prefix, cache.environment)
    if redis.url is None:
        return MemoryCache(keys, metrics, cache.max_bytes, cache.max_speech_bytes)
    shared = RedisCache(redis, keys, metrics)
    shared.start()
    return shared
