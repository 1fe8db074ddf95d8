"""How often an access key may ask one endpoint. That is counted by all processes together, in the
cache; for requests a minute, which each process counts, see `limits`.
"""

import math

from fastapi.params import Depends
from starlette.requests import HTTPConnection

from mediad.api.access import Access
from mediad.api.errors import ApiError
from mediad.api.limits import Rate
from mediad.api.services import ServicesOf
from mediad.config import LimitedEndpoint

__all__ = ["limited"]


def limited(endpoint: LimitedEndpoint) -> Depends:
    """Return what a route has among its ``dependencies`` to be limited. Routes with one name share
    what it may.
    """

    async def check(connection: HTTPConnection, services: ServicesOf) -> None:
        limit = services.settings.http.endpoint_limits[endpoint]
        if limit == 0:
            return
        state = connection.state
        access: Access = state.access  # by `KeyCheck`
        key = services.cache.keys.rate_limit(access.key_id, endpoint)
        count = await services.cache.count(key)
        rate = Rate(limit, limit - count.number, math.ceil(count.ends_in_s))
        # The headers show what is used up first.
        state.rate = min(rate, getattr(state, "rate", rate), key=lambda one: one.remaining)
        if rate.remaining < 0:
            services.metrics.http_rate_limited.labels(endpoint).inc()
            message = f"{limit} requests in {key.ttl_s // 60} minutes are the most for {endpoint}"
            headers = {"Retry-After": str(rate.reset_s)}
            raise ApiError(429, "rate_limited", message, {"endpoint": endpoint}, headers)

    return Depends(check)
