"""Sentences as they leave while the text is still being written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediad.call.turn.sentences import FIRST_MAX_CHARS, MAX_CHARS, Sentences, cut

# Each text is cut at "|"; the marks are not in the text.
TEXTS = {
    "en": [
        "Hello!| How can I help you?",
        "Dr. Smith is in.| Please wait.",
        "Mr. and Mrs. Jones live on St. James St. in London.| Yes.",
        "It costs 3.50 dollars.| Is that fine?",
        "Version 2.0 is out.| It is better.",
        "We open at 10:30 a.m. on Mondays.| Bye.",
        "We open at 9 a.m.| Then we close.",
        "We met J. R. Tolkien.| He wrote.",
        "The U.S. Army called.| We answered.",
        "Bring fruit, e.g. Apples or pears.| Thanks.",
        "Bring milk, eggs, etc.| Then come home.",
        "No.| I said no.",
        "Take bus no. 5 at noon.| Then walk.",
        "Well... maybe.| Let me see.",
        "Wait…| I know!",
        "Really?!| Yes!",
        '"Stop!" he said.| She did.',
        'He said "stop."| She did.',
        "See www.example.com for more.| Or call.",
        "Write to a.b@example.org.| Thanks.",
        "It was I.| Who else?",
        "1. Take it.| 2. Eat it.",
        "Here is what you need:\n|- milk\n|- bread",
        "First line\n|Second line.",
        "Your code is 4711.| Keep it.",
        "That was in 2024.| Now it is better.",
        "(It is late.)| Good night.",
        "Call 555.| 20 people wait.",
        "This is **very important.**| Do it.",
    ],
    "de": [
        "Guten Tag!| Was kann ich tun?",
        "Am 3. Mai um 14.30 Uhr, ist das recht?| Ja.",
        "Das sind z.B. Äpfel, d.h. Obst.| Gut.",
        "Dr. Müller kommt am 24. Dezember.| Bis dann.",
        "Das war 2024.| Jetzt ist es besser.",
        "Der Preis ist 3,50 Euro.| Danke.",
        "Ich bin da usw.| Bis dann.",
    ],
    "es": [
        "Hola.| ¿Cómo está?| ¡Muy bien!",
        "El Sr. García no está.| ¿Quiere esperar?",
        "¡Hola!, dijo Ana.| ¿Sí?",
        "Cuesta 3,50 euros.| Gracias.",
    ],
    "fr": [
        "Bonjour !| Comment allez-vous ?| Bien.",
        "M. Dupont est là.| « Entrez ! »| Merci.",
        "Il est 8 h 30.| Bon.",
    ],
    "it": ["Il sig. Rossi è qui.| Prego."],
    "zh": [
        "你好。|今天天气很好！|你想要什么？",
        "他说：「好。」我走了。|再见。",
        "价格是3.5元。|谢谢。",
    ],
    "ja": ["こんにちは。|元気ですか？|はい。", "「はい。」と言いました。|次。"],
    "ko": ["안녕하세요.| 무엇을 도와드릴까요?"],
    "hi": ["नमस्ते।| आप कैसे हैं?"],
    "ar": ["مرحبا.| كيف حالك؟| جيد."],
    "ru": ["Привет!| Как дела?| Хорошо."],
}
CASES = [(language, text) for language, texts in TEXTS.items() for text in texts]


def pieces_of(language: str, text: str, size: int) -> list[str]:
    """Feed a text in deltas of one size."""
    sentences = Sentences(language)
    pieces: list[str] = []
    for at in range(0, len(text), size):
        pieces += sentences.add(text[at : at + size])
    return pieces + sentences.finish()


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("language", "marked"), CASES)
def test_sentences(language: str, marked: str, size: int) -> None:
    expected = [piece.strip() for piece in marked.split("|")]
    assert pieces_of(language, marked.replace("|", ""), size) == expected


@pytest.mark.parametrize(
    ("deltas", "leaves_with"),
    [
        (["Hello", "!", " How", " can"], 2),
        (["Sure", ".", " I", " can"], 2),
        (["你好", "。", "今天"], 1),
        (["One", "\n", "Two"], 1),
        (["Mr", ".", " Smith", " is", " in", ".", " He"], 6),
    ],
)
def test_a_sentence_leaves_with_what_shows_its_end(deltas: list[str], leaves_with: int) -> None:
    sentences = Sentences("en")
    assert [bool(sentences.add(delta)) for delta in deltas[: leaves_with + 1]] == [
        False
    ] * leaves_with + [True]


def test_a_long_first_sentence_leaves_at_a_clause() -> None:
    text = (
        "Thank you very much for calling the customer service, I would be happy to help you with "
        "your order today, and with whatever else there may be."
    )
    first, *rest = pieces_of("en", text, 4)
    assert first == "Thank you very much for calling the customer service,"
    assert " ".join([first, *rest]) == text


def test_a_long_sentence_is_cut_at_a_clause_or_a_space() -> None:
    pieces = pieces_of("en", "Yes. " + "Word " * 200 + "and, finally, this.", 7)
    assert pieces[0] == "Yes."
    assert all(len(piece) <= MAX_CHARS for piece in pieces)
    assert all(piece.startswith(("Word", "Yes", "and", "fin")) for piece in pieces)


def test_text_without_spaces_is_cut_all_the_same() -> None:
    pieces = pieces_of("en", "x" * 1000, 10)
    assert "".join(pieces) == "x" * 1000
    assert max(map(len, pieces)) <= MAX_CHARS


def test_what_cannot_be_said_is_left_out() -> None:
    assert pieces_of("en", "Hi! 😀\n\n---\n\nBye.", 1) == ["Hi!", "Bye."]


def test_an_empty_text_has_no_sentence() -> None:
    assert pieces_of("en", " \n ", 1) == []


def test_a_new_text_after_the_end_begins_anew() -> None:
    sentences = Sentences("en")
    sentences.add("Never ended")
    assert sentences.finish() == ["Never ended"]
    assert sentences.add("Yes. No") == ["Yes."]


@pytest.mark.parametrize(
    "text", ["It is so.", "It is so. ", "Is it?", 'She said "yes." ', "At 5 p.m.", "It costs 3. "]
)
def test_a_sentence_need_not_wait_for_the_next(text: str) -> None:
    sentences = Sentences("en")
    assert sentences.add(text) == []
    assert sentences.pause() == [text.strip()]
    assert sentences.pause() == []
    assert sentences.add(" And") == []
    assert sentences.finish() == ["And"]


@pytest.mark.parametrize(
    "text", ["", " ", ".", "It is", "It is so,", "I met Dr.", "J.", "It costs 3.", "e.g."]
)
def test_a_pause_ends_nothing_that_is_no_sentence(text: str) -> None:
    sentences = Sentences("en")
    sentences.add(text)
    assert sentences.pause() == []
    assert sentences.add("50 or so. N")[:1] == [f"{text}50 or so.".strip()]


@given(
    st.text(alphabet="aB1 .,!?。「」\n\"'…¿-", max_size=400),
    st.lists(st.integers(1, 9), min_size=1, max_size=30),
    st.sampled_from(["en", "de", "ja"]),
)
def test_how_the_text_comes_changes_no_word(text: str, sizes: list[int], language: str) -> None:
    sentences = Sentences(language)
    pieces: list[str] = []
    at = 0
    while at < len(text):
        for size in sizes:
            pieces += sentences.add(text[at : at + size])
            at += size
    pieces += sentences.finish()
    assert [c for c in "".join(pieces) if c.isalnum()] == [c for c in text if c.isalnum()]
    assert all(len(piece) <= MAX_CHARS + FIRST_MAX_CHARS for piece in pieces)


def test_a_text_that_is_all_there_is_cut_at_once() -> None:
    assert cut("One. Two? 3. Four", "en") == ["One.", "Two?", "3. Four"]
    assert cut("Three", "") == ["Three"]
    assert cut("…", "en") == ["…"]
