"""What was said on a pipeline's call, as the language model is told it. Pure.

The agent's words are those that were heard: what a barge-in cut off is not in it.
"""

from collections import deque
from typing import Any

from mediad.call.turn.actions import Why

__all__ = ["MAX_CHARS", "MAX_MESSAGES", "History"]

MAX_MESSAGES = 200
"""Messages that are told; of a longer conversation the oldest are not."""

MAX_CHARS = 32_768
"""All that is told beside the prompt, in characters; the newest message always is."""

_TASKS = {
    Why.OPEN: "The caller is on the line and has not spoken. Begin the conversation.",
    Why.GO_ON: "A noise has interrupted you; the caller said nothing. Finish what you were saying.",
}

Message = dict[str, Any]


class History:
    """One call's conversation.

    Args:
        prompt: What the agent is; empty leaves that to the service.
    """

    def __init__(self, prompt: str = "") -> None:
        self._prompt = prompt
        self._messages: deque[Message] = deque()

    def add_caller(self, text: str, instead_of: str = "") -> None:
        """The caller has said this; in place of the end of its last words, if that is told."""
        said = next((one for one in reversed(self._messages) if one["role"] == "user"), None)
        if instead_of and said is not None and said["content"].endswith(instead_of):
            said["content"] = f"{said['content'].removesuffix(instead_of)}{text}"[-MAX_CHARS:]
            self._trim()
        else:
            self._add("user", text)

    def add_agent(self, text: str) -> None:
        """The caller has heard this of the agent."""
        self._add("assistant", text)

    def add_note(self, text: str) -> None:
        """Something has happened that nobody said."""
        self._add("system", text)

    def messages(self, why: Why) -> list[Message]:
        """Return what the language model is to go on from, as in OpenAI's chat completions."""
        prompt = [_message("system", self._prompt)] if self._prompt else []
        task = [_message("system", _TASKS[why])] if why in _TASKS else []
        return [*prompt, *self._messages, *task]

    def _add(self, role: str, text: str) -> None:
        last = self._messages[-1] if self._messages else None
        if last is not None and last["role"] == role:  # some services take only one in a row
            last["content"] = f"{last['content']} {text}"[-MAX_CHARS:]
        else:
            self._messages.append(_message(role, text[:MAX_CHARS]))
        self._trim()

    def _trim(self) -> None:
        messages = self._messages
        chars = sum(len(message["content"]) for message in messages)
        while len(messages) > MAX_MESSAGES or (chars > MAX_CHARS and len(messages) > 1):
            chars -= len(messages.popleft()["content"])


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
