"""The first access key of an embedded database: else nobody could make one by the API."""

import logging
import os
from pathlib import Path

from mediad.store import accesskeys
from mediad.store.accesskeys import AccessKeyFields
from mediad.store.audit import MEDIAD
from mediad.store.database import Database

__all__ = ["make_first_key"]

logger = logging.getLogger(__name__)


async def make_first_key(database: Database, directory: Path) -> None:
    """Make a root key of the customer ``default`` if there never was any, and write it to the file
    ``access_key`` of the directory, in the place of one that is there: it has no good key.

    Raises:
        DatabaseUnavailable: If the database does not answer.
        OSError: If the file cannot be made; then there is no key either.
    """
    path = directory / "access_key"
    async with database.write() as connection:
        if await accesskeys.count(connection):
            return
        fields = AccessKeyFields(name="first", role="root")
        made = await accesskeys.create(connection, "default", fields, MEDIAD)
        # In the transaction: without the file there is no key either. If the transaction comes to
        # nothing, the next start gets here again.
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as output:
            output.write(f"{made.key}\n")
    logger.info("the first access key is in %s", path)
