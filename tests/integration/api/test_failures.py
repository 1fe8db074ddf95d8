"""What the API answers when it cannot do what it was asked, though the request is right: it is too
busy, a call does not answer or is gone, something of our own is broken.
"""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from mediad.api.limits import MAX_WAITING
from mediad.store import agents
from tests.facts import CallFacts
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.daemon import eventually, settings

NUMBER = "+4930111"


@pytest.fixture
async def telephony(request: pytest.FixtureRequest) -> AsyncIterator[Telephony]:
    """A mediad; a parameter is of ``[http]``."""
    made = settings("ws://127.0.0.1:9")
    http = made.http.model_copy(update=getattr(request, "param", {}))
    async with open_telephony(made.model_copy(update={"http": http})) as telephony:
        yield telephony


@pytest.mark.parametrize("telephony", [{"max_running": 1}], indirect=True)
async def test_too_many_requests_are_told_to_come_back(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 7
    ours = telephony.ours
    has_begun, goes_on = threading.Event(), threading.Event()

    async def hold(*_: object) -> None:
        has_begun.set()
        while not goes_on.is_set():  # noqa: ASYNC110  # another loop is to set it
            await asyncio.sleep(0.01)

    monkeypatch.setattr(agents, "get", hold)
    at_work = asyncio.create_task(ours.get("/v1/agents/one"))
    await eventually(has_begun.is_set)
    answers: asyncio.Queue[httpx.Response] = asyncio.Queue()

    async def ask() -> None:
        answers.put_nowait(await ours.ask("GET", "/v1/me"))

    asking = [asyncio.create_task(ask()) for _ in range(MAX_WAITING + refused)]
    for _ in range(refused):
        answer = await answers.get()
        assert (answer.status_code, answer.json()["error"]["reason"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) >= 1
    status, headers, text = await ours.dialplan("POST", "/calls", b"to=1")
    assert (status, headers["x-mediad-reason"], text) == (200, "busy", "")
    assert (await telephony.daemon.get("/healthz"))[0] == 200  # it needs no place
    assert answers.empty()
    goes_on.set()
    await asyncio.gather(*asking)
    statuses = Counter(answers.get_nowait().status_code for _ in range(MAX_WAITING))
    assert statuses == {200: MAX_WAITING}
    assert (await at_work)[0] == 404


async def test_call_that_does_not_answer_in_time(telephony: Telephony) -> None:
    await telephony.ours.add_number(NUMBER, None)
    call_id = (await telephony.ours.make("calls", to=NUMBER))["id"]
    url, headers = f"{telephony.url}/v1/calls/{call_id}", {"AccessKey": telephony.ours.key}
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(httpx.post, f"{url}/hangup", headers=headers, timeout=30)
        answer = asked.result(30)  # holds the calls' loop, which is this one, all the while
    assert (answer.status_code, answer.json()["error"]["reason"]) == (504, "command_timeout")
    # What had not begun then is not done.
    assert (await telephony.ours.get(f"/v1/calls/{call_id}"))[1]["live"]["state"] == "expected"


async def test_a_process_that_does_not_answer_is_not_taken_for_one_without_the_call(
    telephony: Telephony,
) -> None:
    await telephony.ours.add_number(NUMBER, None)
    known = (await telephony.ours.make("calls", to=NUMBER))["id"]
    await telephony.ours.eventually("/v1/calls", lambda body: len(body["result"]) == 1)
    unknown = uuid4()  # perhaps on its way to the database
    asked = [
        ("GET", f"/{known}", 504),
        ("GET", f"/{known}/transcript", 200),
        ("GET", f"/{unknown}", 504),
        ("GET", f"/{unknown}/transcript", 504),
        ("POST", f"/{unknown}/play", 504),
    ]

    def ask(request: tuple[str, str, int]) -> int:
        method, path, _ = request
        url, headers = f"{telephony.url}/v1/calls{path}", {"AccessKey": telephony.ours.key}
        headers["Content-Type"] = "audio/wav"
        return httpx.request(method, url, headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(len(asked)) as pool:  # as above
        found = list(pool.map(ask, asked))
    assert found == [status for _, _, status in asked]
    assert (await telephony.ours.get(f"/v1/calls/{unknown}"))[0] == 404


async def test_call_whose_process_is_gone_is_lost(telephony: Telephony) -> None:
    ours, call = telephony.ours, CallFacts(str(uuid4()))
    telephony.daemon.app.bus.publish(call.created())  # and nothing more is heard of it
    path = f"/v1/calls/{call.call_id}"
    await ours.eventually(path, lambda body: body["status"] == "in-progress")
    for command, body in (("hangup", None), ("mute", {}), ("inject", {"text": "x"})):
        status, answer = await ours.post(f"{path}/{command}", body)
        assert (status, answer["error"]["reason"]) == (409, "call_lost"), command


async def test_error_of_our_own_is_told_to_the_log_only(
    telephony: Telephony, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a detail")

    agent_id = await telephony.ours.add_agent({"prompt": "You answer the telephone."})
    monkeypatch.setattr(agents, "get", fail)
    with caplog.at_level(logging.ERROR):
        status, body = await telephony.ours.get(f"/v1/agents/{agent_id}")
    message = "an error of our own: it is in the log"
    assert (status, body) == (
        500,
        {"error": {"reason": "internal", "message": message, "details": {}}},
    )
    # The server writes it down after it has answered.
    await eventually(lambda: any("a detail" in str(one.exc_info) for one in caplog.records))
    assert len([record for record in caplog.records if record.exc_info]) == 1
    assert await telephony.daemon.metric("mediad_http_answers_total", status="500") == 1
