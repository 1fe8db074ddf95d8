"""What a peer says: without our secrets, on one line, short."""

import base64

import pytest

from mediad import blot
from mediad.config import Settings

KEY = "sk-proj-0123456789abcdef"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no secret but this test's."""
    monkeypatch.setattr(blot, "_known", set())
    monkeypatch.setattr(blot, "_pattern", None)


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        (KEY, f"invalid key {KEY}"),
        (KEY, f"invalid key {KEY[:-4]}"),  # a peer has cut it off
        (KEY, f'{{"key":"{KEY}","code":401}}'),
        (f"Bearer {KEY}", f"invalid key {KEY}"),
        (f"Bearer {KEY}", f"Authorization: Bearer {KEY}"),
        (f"Basic {base64.b64encode(b'user:passw0rd').decode()}", "user passw0rd"),
        ("Basic not base64", "it said Basic not base64"),
        ("a phrase, and more of it", "it said a phrase, and more of it"),
        ("mysql://mediad:passw0rd@127.0.0.1/mediad", "with 'passw0rd'"),
        ("rediss://:p%40ssw0rd@127.0.0.1/0", "beginning with: 'p@ssw0rd'"),
        ("rediss://:p%40ssw0rd@127.0.0.1/0", "beginning with: 'p%40ssw0rd'"),
        ("pass/word+1", "it said pass%2Fword%2B1"),
    ],
)
def test_secret_is_blotted_out_of_what_a_peer_says(secret: str, said: str) -> None:
    blot.know(secret)
    shown = blot.blot(said)
    assert blot.MASK in shown
    for part in (KEY[:12], "passw0rd", "p@ssw0rd", "p%40ssw0rd", "phrase", "base64", "word"):
        assert part not in shown


@pytest.mark.parametrize("secret", ["", "blue", "mysql://127.0.0.1/mediad", "redis://:@host/"])
def test_what_is_no_secret_is_shown(secret: str) -> None:
    blot.know(secret)
    said = "a blue mysql://127.0.0.1/mediad, redis://:@host/"
    assert blot.blot(said) == said


def test_address_that_is_none_is_blotted_out_as_a_whole() -> None:
    blot.know("mysql://mediad:passw0rd@[/mediad")
    assert "passw0rd" not in blot.blot("no address: mysql://mediad:passw0rd@[/mediad")


def test_each_secret_stays_known() -> None:
    blot.know("secret")
    blot.know("secretive")
    blot.know("another one")
    assert blot.blot("secretive secret another one") == " ".join([blot.MASK] * 3)


def test_words_are_short_and_on_one_line() -> None:
    blot.know(KEY)
    said = f"{'x' * 195}{KEY}\r\n\x1b[31m\u202eforged" + "y" * 100_000
    assert blot.words(said) == "x" * 195 + "*****"
    assert blot.words("two\nlines\x1b[31m \u202e ü") == r"two\nlines\x1b[31m \u202e ü"
    assert blot.quoted("two\nlines, 'quoted'") == "\"two\\nlines, 'quoted'\""
    assert len(blot.quoted("y" * 100_000)) == blot.MAX_WORDS + 2


def test_secret_of_a_setting_is_known() -> None:
    loaded = Settings.model_validate(
        {
            "ai": {"headers": {"Authorization": f"Bearer {KEY}"}},
            "llm": {"headers": {"X-Key": "another-key"}},
            "redis": {"url": "redis://:passw0rd@127.0.0.1/0"},
        }
    )
    said = f"{KEY}, another-key, passw0rd"
    assert blot.blot(said) == ", ".join([blot.MASK] * 3)
    assert loaded.llm.headers["X-Key"].get_secret_value() == "another-key"
