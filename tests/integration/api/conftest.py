"""Both engines, as for the store."""

from tests.integration.store.conftest import mariadb_url, settings, sqlite_file

__all__ = ["mariadb_url", "settings", "sqlite_file"]
