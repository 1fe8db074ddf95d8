"""Every error that mediad raises on purpose, and what its catcher does.

MediadError
├── ConfigError            a setting is wrong: refuse at start, exit 2
│   └── SchemaError        the database's tables are not those of this version: the same
├── JournalError           the journal cannot be used: refuse at start, exit 2
├── DatabaseUnavailable    the database does not answer: try again later
└── AgentUnavailable       no agent can be had: play the prompt, hang up

What a peer sends wrong is no exception but a value: see ``wire.audiosocket.Violation`` and
``wire.frames.BadFrame``.
"""

__all__ = [
    "AgentUnavailable",
    "ConfigError",
    "DatabaseUnavailable",
    "JournalError",
    "MediadError",
    "SchemaError",
]


class MediadError(Exception):
    """Base of the tree."""


class ConfigError(MediadError):
    """A setting is missing or wrong; the message names file, table and key."""


class SchemaError(ConfigError):
    """The database's tables are missing, older or newer than this version's."""


class JournalError(MediadError):
    """The journal's file cannot be opened, belongs to another process or cannot be written."""


class DatabaseUnavailable(MediadError):
    """The database cannot be reached, is too slow, or dropped the connection."""


class AgentUnavailable(MediadError):
    """No agent answered within ``ai.connect_timeout_s``, or all of them refused."""
