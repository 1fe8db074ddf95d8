"""Both engines, as for the store."""

from tests.integration.store.conftest import (
    database,
    mariadb_url,
    settings,
    sqlite_file,
)

__all__ = ["database", "mariadb_url", "settings", "sqlite_file"]
