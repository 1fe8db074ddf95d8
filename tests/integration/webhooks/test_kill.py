"""A whole mediad, killed between a call's end and its webhook."""

from pathlib import Path

from mediad.caller import Caller
from mediad.config import Database as DatabaseSettings
from mediad.metrics import Metrics
from mediad.store.database import Database
from tests.books import as_environment
from tests.integration.webhooks.receiver import Receiver, add_webhook
from tests.mediad_process import run_mediad


async def test_killed_between_a_calls_end_and_its_webhook(tmp_path: Path) -> None:
    settings = DatabaseSettings(directory=tmp_path)
    options = as_environment(settings) | {"webhooks__allow_private": "true"}
    async with Receiver() as receiver:
        receiver.answer = lambda _: None  # it has the request and does not say so
        database = Database(settings, Metrics())
        await database.open()
        await add_webhook(database, receiver.url, "call_hungup")
        await database.close()
        async with run_mediad("", **options) as mediad:
            async with Caller(*mediad.audiosocket) as caller:
                call_id = str(caller.call_id)
            (cut_off,) = await receiver.attempted(1)
            await mediad.kill()
        receiver.answer = lambda _: 200
        async with run_mediad("", **options):
            (request,) = await receiver.received(1, 20)
    assert request.body["type"] == "call_hungup"
    assert request.body["data"]["id"] == call_id
    assert request.headers["webhook-id"] == request.body["id"] == cut_off.body["id"]
