"""Both engines, as for the store."""

from tests.integration.store.conftest import (
    database,
    mariadb,
    mariadb_url,
    settings,
    sqlite_file,
)

__all__ = ["database", "mariadb", "mariadb_url", "settings", "sqlite_file"]
