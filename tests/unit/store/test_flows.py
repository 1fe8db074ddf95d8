"""What an action of a flow must have."""

from typing import Any

import pytest
from pydantic import ValidationError

from mediad.store.flows import MAX_ACTIONS_BYTES, FlowFields


def test_an_action_has_a_type_and_whatever_that_needs() -> None:
    actions = [{"type": "answer"}, {"type": "talk", "text": "hello", "options": [{"a": 1}]}]
    assert FlowFields.model_validate({"name": "f", "actions": actions}).actions == actions


@pytest.mark.parametrize(
    "action", [{}, {"a": 1}, {"type": 1}, {"type": ""}, {"type": "Two words"}, {"type": "a\n"}, "x"]
)
def test_what_has_no_type_is_no_action(action: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        FlowFields.model_validate({"name": "f", "actions": [{"type": "answer"}, action]})
    assert refused.value.errors()[0]["loc"] == ("actions", 1)


def test_all_actions_together_have_a_largest_size() -> None:
    frame = len('[{"type":"talk","text":""},{"type":"talk","text":""}]')

    def flow(size_bytes: int) -> dict[str, Any]:
        texts = ("é" * 10_000, "x" * (size_bytes - frame - 20_000))
        return {"name": "f", "actions": [{"type": "talk", "text": text} for text in texts]}

    FlowFields.model_validate(flow(MAX_ACTIONS_BYTES))
    with pytest.raises(ValidationError, match="65536 are the most") as refused:
        FlowFields.model_validate(flow(MAX_ACTIONS_BYTES + 1))
    assert refused.value.errors()[0]["loc"] == ("actions",)
