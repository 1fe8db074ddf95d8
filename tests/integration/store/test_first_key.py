"""The file with the first access key has one that is good, whatever became of an earlier start."""

import stat
from pathlib import Path

from sqlalchemy import delete

from mediad import config
from mediad.metrics import Metrics
from mediad.store import accesskeys, tables
from mediad.store.accesskeys import hash_key
from mediad.store.database import Database
from mediad.store.first_key import make_first_key


async def test_a_file_whose_key_is_in_no_database_is_replaced(tmp_path: Path) -> None:
    database = Database(config.Database(directory=tmp_path), Metrics())
    await database.open()
    path = tmp_path / "access_key"
    try:
        await make_first_key(database, tmp_path)
        async with database.write() as connection:  # as if it had not been committed
            await connection.execute(delete(tables.accesskeys))
        path.chmod(0o644)
        dead = path.read_text()
        await make_first_key(database, tmp_path)
        made = path.read_text()
        assert made != dead
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await make_first_key(database, tmp_path)
        assert path.read_text() == made
        async with database.read() as connection:
            found = await accesskeys.find(connection, hash_key(made.strip()))
        assert found is not None
        assert found.role == "root"
    finally:
        await database.close()
