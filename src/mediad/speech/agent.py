"""The command ``mediad agent``: runs the built-in agent (`bot`) until it is told to end."""

from mediad.speech import espeak
from mediad.speech.listening import listen
from mediad.speech.pipecat_log import only_warnings

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
    with listen(host, port) as listener:
        only_warnings()
        # Only now: Pipecat greets through the log while it is imported, and takes seconds.
        from mediad.speech.bot import Bot, BotOptions, Server

        options = BotOptions(voice, rate_wpm, out_rate_hz, max_calls)
        server = Server(Bot(options), lambda url: print(f"agent listening on {url}", flush=True))
        server.run([listener])
