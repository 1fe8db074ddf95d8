"""What an action of a flow must have."""

from typing import Any

import pytest
from pydantic import ValidationError

from mediad.store.flows import FlowFields


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
