"""Numbers and what answers them, over HTTP and with both databases."""

from collections.abc import AsyncIterator

import pytest

from mediad import config
from tests.integration.api.calls_client import Customer, Telephony, open_telephony
from tests.integration.daemon import settings as daemon_settings


@pytest.fixture
async def telephony(settings: config.Database) -> AsyncIterator[Telephony]:
    """A mediad with this database."""
    wanted = daemon_settings("ws://127.0.0.1:9").model_copy(update={"database": settings})
    async with open_telephony(wanted) as telephony:
        yield telephony


async def test_numbers_lead_to_the_customers_own_agents_and_flows_only(
    telephony: Telephony,
) -> None:
    ours, theirs = telephony.ours, telephony.theirs
    key = await theirs.new_key("admin")
    own = (await theirs.make("flows", name="f", actions=[]))["id"]
    foreign = await make_both(ours)
    deleted = await make_both(theirs)
    for what, id in deleted.items():
        path = f"/v1/{what.removesuffix('_id')}s/{id}"
        assert (await theirs.ask("DELETE", path, key=key)).status_code == 204
    number = await theirs.make("numbers", number="+4930444", flow_id=own)
    path = f"/v1/numbers/{number['id']}"
    for wrong in (foreign, deleted, {"agent_id": "nobody", "flow_id": "nothing"}):
        for name, id in wrong.items():
            fields = {"number": "+4930555", name: id}
            for answer in (
                await theirs.ask("POST", "/v1/numbers", fields, key=key),
                await theirs.ask("PATCH", path, {name: id, "name": "x"}, key=key),
            ):
                what = name.removesuffix("_id")
                assert (answer.status_code, answer.json()["error"]["reason"]) == (
                    422,
                    f"unknown_{what}",
                )
                assert answer.json()["error"]["message"] == f"there is no {what} {id}"
    assert (await theirs.get(path))[1] == number
    assert len((await theirs.get("/v1/numbers"))[1]["result"]) == 1
    changed = await theirs.ask("PATCH", path, {"flow_id": None}, key=key)
    assert (changed.status_code, changed.json()["flow_id"]) == (200, None)


async def test_a_deleted_customers_numbers_are_free(telephony: Telephony) -> None:
    ours, theirs = telephony.ours, telephony.theirs
    number = "+4930666"
    await theirs.add_number(number, None)
    assert (await theirs.post("/v1/calls", {"to": number}))[0] == 201  # it is remembered now
    path = f"/v1/customers/{theirs.id}"
    for status in (204, 404):
        assert (await ours.ask("DELETE", path, key=telephony.root)).status_code == status
    assert (await ours.post("/v1/calls", {"to": number}))[0] == 409
    await ours.add_number(number, None)
    assert (await ours.post("/v1/calls", {"to": number}))[0] == 201


async def test_a_numbers_own_config_goes_over_its_agents(telephony: Telephony) -> None:
    ours = telephony.ours
    mute = await ours.add_agent({"prompt": "Be brief, please."})
    voice = {"provider": "openai", "voice_id": "alloy"}
    voiced = await ours.add_agent({"prompt": "Be brief, please.", "voice": voice})
    override = {"agent_config_override": {"voice": {"model": "x"}}}

    async def ask(method: str, path: str, **fields: object) -> tuple[int, str]:
        answer = await ours.ask(method, path, fields, key=telephony.root)
        return answer.status_code, answer.json().get("error", {}).get("message", "")

    wrong = 422, "agent_config_override: with the agent's config: voice.provider: Field required"
    new = {"number": "+4930777", **override}
    assert await ask("POST", "/v1/numbers", **new, agent_id=mute) == wrong
    assert await ask("POST", "/v1/numbers", **new, agent_id=voiced) == (201, "")
    number_id = (await ours.get("/v1/numbers"))[1]["result"][0]["id"]
    path = f"/v1/numbers/{number_id}"
    assert await ask("PATCH", path, agent_id=mute) == wrong
    assert await ask("PATCH", path, agent_id=mute, agent_config_override=None) == (200, "")
    assert await ask("PATCH", path, **override) == wrong
    assert await ask("PATCH", path, **override, agent_id=None) == (200, "")
    assert await ask("PATCH", path, agent_id=voiced) == (200, "")


async def make_both(customer: Customer) -> dict[str, str]:
    """Make an agent and a flow; return their ids by the names that numbers have for them."""
    agent_id = (await customer.make("agents", name="a", config={"prompt": "Be brief, please."}))[
        "id"
    ]
    return {
        "agent_id": agent_id,
        "flow_id": (await customer.make("flows", name="f", actions=[]))["id"],
    }
