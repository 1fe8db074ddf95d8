"""Every error that mediad raises on purpose, and what its catcher does.

MediadError
├── ConfigError        a setting is wrong: refuse at start, exit 2
└── AgentUnavailable   no agent can be had: play the prompt, hang up

What a peer sends wrong is no exception but a value: see ``wire.audiosocket.Violation`` and
``wire.frames.BadFrame``.
"""

__all__ = [
    "AgentUnavailable",
    "ConfigError",
    "MediadError",
]


class MediadError(Exception):
    """Base of the tree."""


class ConfigError(MediadError):
    """A setting is missing or wrong; the message names file, table and key."""


class AgentUnavailable(MediadError):
    """No agent answered within ``ai.connect_timeout_s``, or all of them refused."""
