"""The API does what its OpenAPI says: schemathesis asks every endpoint that is served, with what
the schema allows and with what it does not, and no answer is a 5xx or other than the schema has it.

That this can fail was seen: an access key with ``"allowed_ips": [true]`` was once a 500.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import schemathesis
from schemathesis import Case, HookContext
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from mediad import config
from mediad.config import ENDPOINT_LIMITS
from tests.integration.api.calls_client import Telephony, open_telephony
from tests.integration.api.everything import (
    CUSTOMER_URL,
    PROMPT,
    live_call,
    make_everything,
    settings_with_agent,
)

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
KEY_ID = "accesskey_id"
UNDOING = ("DELETE", "/hangup", "/rotate")
"""What is done to things that nothing else needs."""

NEVER_DONE = {"POST /v1/calls/{call_id}/say", "POST /v1/calls/{call_id}/hangup"}
"""The agent here makes its own speech; and there is little time to hang up a call that is expected
only.
"""

Ids = Mapping[str, tuple[str, ...]]


class Asked(NamedTuple):
    """What schemathesis has asked, and what was wrong."""

    answers: dict[str, Counter[int]]
    """By endpoint: how often which status."""
    failures: list[str]


async def test_every_answer_is_as_the_schema_says(
    settings: config.Database, tmp_path: Path
) -> None:
    async with settings_with_agent(tmp_path) as wanted:
        off = {"max_requests_per_minute": 0, "endpoint_limits": dict.fromkeys(ENDPOINT_LIMITS, 0)}
        http = wanted.http.model_copy(update=off)
        made = wanted.model_copy(update={"http": http, "database": settings})
        async with open_telephony(made) as telephony, live_call(telephony, "+4930333") as live:
            kept = await make_everything(telephony, "+4930111")
            kept["call_id"] += (live,)
            spent = await make_everything(telephony, "+4930222")
            spent["customer_id"] = (telephony.theirs.id,)
            # What its form refuses never reaches a database: once is enough.
            mode = "all" if settings.url is None else "positive"
            asked = await asyncio.to_thread(ask, telephony, kept, spent, mode)
            paths = (await telephony.nobody.get("/openapi.json"))[1]["paths"]
    assert not asked.failures, "\n\n".join(asked.failures)
    assert set(asked.answers) == {f"{how.upper()} {path}" for path in paths for how in paths[path]}
    for name, answers in asked.answers.items():
        # Else what was to be looked at was never reached.
        assert not {401, 403, 429} & answers.keys(), (name, answers)
        assert any(status < 300 for status in answers) or name in NEVER_DONE, (name, answers)
        assert "/dialplan/" not in name or answers.keys() == {200}, answers


def ask(telephony: Telephony, kept: Ids, spent: Ids, mode: str) -> Asked:
    """Ask every endpoint, as root."""
    url = f"{telephony.url}/openapi.json"
    schema = schemathesis.openapi.from_url(url, config=make_config(telephony.root, mode))

    @schema.hook
    def map_case(context: HookContext, case: Case[Any]) -> Case[Any]:
        return use_what_there_is(case, kept, spent)

    asked = Asked({}, [])
    for event in from_schema(schema).execute():
        match event:
            case events.ScenarioFinished(label=str() as name, recorder=recorder):
                answers = asked.answers.setdefault(name, Counter())
                for done in recorder.interactions.values():
                    assert done.response is not None, name
                    answers[done.response.status_code] += 1
                for checks in recorder.checks.values():
                    failed = [check.failure_info for check in checks if check.failure_info]
                    asked.failures.extend(
                        f"{name}: {info.failure}\n{info.failure.message}\n{info.code_sample}"
                        for info in failed
                    )
            case events.NonFatalError(value=exc) | events.FatalError(exception=exc):
                raise exc
    return asked


def make_config(key: str, mode: str) -> SchemathesisConfig:
    """Return how much is asked, and what is looked at."""
    off = {"enabled": False}
    generation = {"mode": mode, "max-examples": 5, "database": "none", "no-shrink": True}
    # The key below is sent as the schema has it; what comes without one is not looked at here.
    generation["with-security-parameters"] = False
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "auth": {"openapi": {"AccessKey": {"api_key": key}}},
            "continue-on-failure": True,
            "generation": generation,
            "phases": {"stateful": off, "coverage": {"unexpected-methods": []}},
            "checks": off | {name: {"enabled": True} for name in CHECKS},
        }
    )


def use_what_there_is(case: Case[Any], kept: Ids, spent: Ids) -> Case[Any]:
    """Ask for things that there are, in two of three cases: made-up ids find nothing. Which cases
    these are depends on the case alone.
    """
    undoes = any(word in f"{case.method} {case.path}" for word in UNDOING)
    for name, made_up in (case.path_parameters or {}).items():
        number = crc32(f"{made_up} {case.query} {case.body!r}".encode("utf-8", "replace"))
        if number % 3 or name == KEY_ID:  # never the key that asks
            ids = (spent if undoes else kept)[name]
            # Of calls, only the live one, which is the last, can be told something.
            case.path_parameters[name] = ids[-1 if case.method == "POST" else number % len(ids)]
    if isinstance(case.body, dict) and "url" in case.body and "/webhooks" in case.path:
        case.body = case.body | {"url": CUSTOMER_URL}  # nobody is to be asked
    if isinstance(case.body, dict) and "prompt" in case.body and case.path.endswith("/play"):
        case.body = {"prompt": PROMPT}
    return case
