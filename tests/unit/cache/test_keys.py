"""The keys: their form, how long each is kept, and that no id makes another one's key."""

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.cache.keys import ENVIRONMENTS, MAX_TTL_S, Key, Keys

KEYS = Keys("mediad", "prod")


@pytest.mark.parametrize(
    ("key", "text", "ttl_s"),
    [
        (KEYS.call("c1"), "mediad:prod:call:c1:record", 60),
        (KEYS.call_session("c1"), "mediad:prod:call:c1:session", 3600),
        (KEYS.call_summary("c1"), "mediad:prod:call:c1:summary", 604_800),
        (KEYS.conversation_context("c1"), "mediad:prod:conversation:c1:context", 1800),
        (KEYS.conversation_history("c1"), "mediad:prod:conversation:c1:history", 7200),
        (KEYS.agent("a1"), "mediad:prod:agent:a1:config", 3600),
        (KEYS.number("+4930901820"), "mediad:prod:number:+4930901820:config", 3600),
        (KEYS.speech("5f"), "mediad:prod:tts:5f:audio", 86_400),
        (KEYS.flow("f1"), "mediad:prod:flow:f1:definition", 3600),
        (KEYS.rate_limit("k1", "calls:create"), "mediad:prod:ratelimit:k1:calls:create", 900),
    ],
)
def test_key_says_what_it_is_of_and_how_long_it_is_kept(key: Key, text: str, ttl_s: int) -> None:
    assert (key.text, key.ttl_s) == (text, ttl_s)
    _, _, type_, _, component = text.split(":", 4)
    assert key.kind == f"{type_}:{component}"


@pytest.mark.parametrize("ttl_s", [0, -1, MAX_TTL_S + 1])
def test_key_without_an_end_cannot_be_made(ttl_s: int) -> None:
    with pytest.raises(ValueError, match="call:record: a time to live of"):
        Key("mediad:prod:call:c1:record", "call:record", ttl_s)


@pytest.mark.parametrize("environment", sorted(ENVIRONMENTS))
def test_known_environment_is_in_the_key(
    environment: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Keys("m", environment).agent("a1").text == f"m:{environment}:agent:a1:config"
    assert not caplog.records


def test_unknown_environment_is_taken_for_dev_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert Keys("m", "live").agent("a1").text == "m:dev:agent:a1:config"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'live' is not known; dev is taken" in caplog.text


@given(st.text(st.characters(exclude_categories=[])))  # half surrogate pairs, too
def test_id_stays_one_part_and_can_be_read_back(identifier: str) -> None:
    parts = KEYS.number(identifier).text.split(":")
    assert len(parts) == 5
    assert unquote(parts[3], errors="surrogatepass") == identifier
