"""The command ``mediad agent``: runs the built-in agent (`bot`) until it is told to end."""

import socket
import sys

from loguru import logger

from mediad.errors import ConfigError
from mediad.speech import espeak

__all__ = ["run_agent"]


def run_agent(
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    voice: str = espeak.DEFAULT_VOICE,
    rate_wpm: int = espeak.DEFAULT_RATE_WPM,
    out_rate_hz: int = 24_000,
    max_calls: int = 50,
) -> None:
    """Serve calls until SIGINT or SIGTERM; print ``agent listening on ws://…`` when ready.

    Args:
        port: 0 means a free one, which that line names.
        voice: An espeak-ng voice (``en-us``, ``en``, ``en-us+f3``, …).
        rate_wpm: How fast it speaks, in words a minute.
        out_rate_hz: The sample rate of what it sends.
        max_calls: Calls at once; one more is refused with 1013.

    Raises:
        ConfigError: If the address is in use, or not this machine's.
        SpeechError: If espeak-ng is missing or has no such voice.
    """
    with _listen(host, port) as listener:
        logger.remove()
        logger.add(sys.stderr, level="WARNING")
        # Only now: Pipecat greets through the log while it is imported, and takes seconds.
        from mediad.speech.bot import Bot, BotOptions, Server

        options = BotOptions(voice, rate_wpm, out_rate_hz, max_calls)
        server = Server(Bot(options), lambda url: print(f"agent listening on {url}", flush=True))
        server.run([listener])


def _listen(host: str, port: int) -> socket.socket:
    """Take the address at once; who connects before the agent is ready waits for it."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as exc:
        listener.close()
        raise ConfigError(
            f"the agent cannot listen on {host}, port {port} ({exc.strerror}); choose another "
            "with --host or --port"
        ) from exc
    return listener
