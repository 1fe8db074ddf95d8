"""Every error that mediad raises on purpose, and what its catcher does.

MediadError
├── ConfigError            a setting is wrong: refuse at start, exit 2
│   └── SchemaError        the database's tables are not those of this version: the same
├── JournalError           the journal cannot be used: refuse at start, exit 2
├── DatabaseUnavailable    the database does not answer: try again later
├── AgentUnavailable       no agent can be had: play the prompt, hang up
└── CommandError           a live call did not do what it was told: tell who asked
    ├── CommandTimeout     it did not answer in time: ask again
    ├── CallLost           it is over, or nobody has it
    └── CommandRefused     it cannot do that, or not now; with a reason for programs

What a peer sends wrong is no exception but a value: see ``wire.audiosocket.Violation`` and
``wire.frames.BadFrame``.
"""

__all__ = [
    "AgentUnavailable",
    "CallLost",
    "CommandError",
    "CommandRefused",
    "CommandTimeout",
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


class CommandError(MediadError):
    """A command to a live call came to nothing."""


class CommandTimeout(CommandError):
    """The process that has the call did not answer in time. The command may still be carried out,
    unless it had not begun.
    """


class CallLost(CommandError):
    """The customer has no such call that lives: it is over, or its process is gone."""


class CommandRefused(CommandError):
    """The call cannot do that.

    Args:
        reason: A word for programs.
        message: A sentence for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
