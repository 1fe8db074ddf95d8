"""What an agent's config may be, and what may go over it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mediad.metrics import Metrics
from mediad.store.agents import AgentConfig, merge_config
from mediad.store.fact_json import encode
from mediad.store.journal import MAX_FACT_BYTES, Journal
from mediad.store.numbers import NumberFields
from mediad.store.rows import MAX_OBJECT_BYTES, Object, SmallObject
from tests.facts import CallFacts

EMOJI = "\N{GRINNING FACE}"  # 4 bytes in UTF-8, 12 in the journal's ASCII


def object_of(size_bytes: int) -> dict[str, Any]:
    """Return an object of so much JSON, most of it emoji."""
    count, rest = divmod(size_bytes - len('{"a":""}'), 4)
    return {"a": EMOJI * count + "x" * rest}


def voice(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the largest voice but for its settings."""
    long = EMOJI * 255
    return {"provider": "elevenlabs", "voice_id": long, "model": long, "settings": settings}


LARGEST: dict[str, Any] = {
    "link": "pipeline",
    "url": ["ws://a/" + "a" * 1993] * 8,
    "variables": {f"{number:064}": EMOJI * 256 for number in range(32)},
    "prompt": EMOJI * 5000,
    "first_message": EMOJI * 5000,
    "voice": voice(object_of(MAX_OBJECT_BYTES)),
    "llm": {"model": "gpt-3.5-turbo"},
}
BASE: dict[str, Any] = {
    "prompt": "Be brief, please.",
    "voice": voice({}),
    "llm": {"model": "gpt-4"},
}


def test_largest_config_makes_a_fact_that_the_journal_takes(tmp_path: Path) -> None:
    config = AgentConfig.model_validate(LARGEST).model_dump(mode="json")
    long = EMOJI * 255
    fact = CallFacts().created(
        source=long, destination=long, agent_config=config, metadata=object_of(16_384)
    )
    assert len(encode(fact)) < MAX_FACT_BYTES // 2
    journal = Journal(tmp_path / "journal.db", 1 << 30, False, Metrics())
    journal.open()
    assert journal.offer(fact)
    journal.close(5.0)
    assert journal.refused == 0


@pytest.mark.parametrize("name", ["provider_data", "agent_config_override"])
def test_what_has_no_form_has_a_largest_size(name: str) -> None:
    def fields(value: dict[str, Any]) -> NumberFields:
        if name == "agent_config_override":
            value = {"voice": {"settings": value}}
        return NumberFields.model_validate({"number": "+4930111", name: value})

    room = MAX_OBJECT_BYTES - (len('{"voice":{"settings":}}') if "config" in name else 0)
    fields(object_of(room))
    with pytest.raises(ValidationError, match="16384 are the most") as refused:
        fields(object_of(room + 1))
    assert refused.value.errors()[0]["loc"] == (name,)


def nested(depth: int) -> dict[str, Any]:
    """Return an object that is so deep."""
    value: dict[str, Any] = {"a": 1}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        (nested(20), nested(21), "more than 20 levels"),
        ({"a": [[nested(17)]]}, {"a": [[nested(18)]]}, "more than 20 levels"),
        ({"a": {}}, nested(200), "more than 20 levels"),
        ({"a": 2**63 - 1, "b": 1e300}, {"a": 2**63}, "more than 64 bits"),
        ({"a": [-(2**63), True]}, {"a": [[{"b": -(2**63) - 1}]]}, "more than 64 bits"),
    ],
)
def test_what_has_no_form_is_what_every_database_keeps(
    good: dict[str, Any], bad: dict[str, Any], why: str
) -> None:
    objects: TypeAdapter[Object] = TypeAdapter(SmallObject)
    assert objects.validate_python(good) == good
    with pytest.raises(ValidationError, match=why):
        objects.validate_python(bad)


def test_settings_of_a_voice_have_a_largest_size() -> None:
    larger = LARGEST | {"voice": voice(object_of(MAX_OBJECT_BYTES + 1))}
    with pytest.raises(ValidationError, match="16384 are the most") as refused:
        AgentConfig.model_validate(larger)
    assert refused.value.errors()[0]["loc"] == ("voice", "settings")


@pytest.mark.parametrize(
    "override",
    [
        {},
        {"prompt": "You answer the telephone."},
        {"voice": None, "llm": {"temperature": 1.5}},
        {"voice": {"settings": {"any": ["thing"]}}},
        {"flow": {"interruption": {"allowed": False}}},
        {"url": "ws://agent:1/{call_id}", "variables": {"shop": "2"}},
    ],
)
def test_any_part_of_a_config_goes_over_it(override: dict[str, Any]) -> None:
    made = NumberFields.model_validate({"number": "+4930111", "agent_config_override": override})
    assert made.agent_config_override == override
    AgentConfig.model_validate(merge_config(BASE, override))


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ({"colour": 1}, "colour: "),
        ({"voice": {"pitch": 1}}, "voice.pitch: "),
        ({"voice": {"provider": "me"}}, "voice.provider: "),
        ({"flow": {"interruption": {"allowed": "perhaps"}}}, "flow.interruption.allowed: "),
        ({"flow": None}, "flow: "),
        ({"prompt": "short"}, "prompt: "),
        ({"url": ["ftp://example.org"]}, "url.0: "),
    ],
)
def test_what_no_config_has_goes_over_none(override: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refused:
        NumberFields.model_validate({"number": "+4930111", "agent_config_override": override})
    (error,) = refused.value.errors()
    assert error["loc"] == ("agent_config_override",)
    assert where in error["msg"]
