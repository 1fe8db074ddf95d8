"""The command ``mediad agent``: the built-in agent and services, and the check of services."""

import sys
from importlib.util import find_spec
from typing import get_args

import click
import uvloop

from mediad.log import logging_to
from mediad.speech.espeak import SpeechError
from mediad.speech.listening import listen
from mediad.speech.roles.choice import Choice, make_service
from mediad.wire.service import Role

__all__ = ["agent"]

_PORTS: dict[str, int] = {"stt": 8771, "llm": 8772, "tts": 8773}
_AGENT_PORT = 8765


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="TCP port; 0: a free one.  [default: 8765; stt 8771, llm 8772, tts 8773]",
)
@click.option("--voice", help="espeak-ng's, or the provider's name of the voice.  [en-us]")
@click.option(
    "--max-calls",
    default=50,
    show_default=True,
    type=click.IntRange(min=1),
    help="Calls at once; one more is closed with 1013. A call takes 5 % of a core.",
)
@click.option(
    "--role", type=click.Choice(get_args(Role)), help="Serve this part of a pipeline instead."
)
@click.option("--service", help="A provider by Pipecat's name: openai, deepgram, … (with --role).")
@click.option("--url", help="An OpenAI-compatible HTTP API, as http://host/v1 (with --role llm).")
@click.option("--model", help="The provider's name of the model.")
@click.option(
    "--check", "checked", metavar="URL", help="Check a service that somebody else serves there."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results of --check as JSON.")
def agent(
    host: str,
    port: int | None,
    voice: str | None,
    max_calls: int,
    role: Role | None,
    service: str | None,
    url: str | None,
    model: str | None,
    checked: str | None,
    as_json: bool,
) -> None:
    """Serve the built-in agent: a Pipecat pipeline that talks and listens offline.

    It hears yes, no, stop and repeat, and DTMF digits. With --role it serves one part of a
    pipeline, offline or by a provider, whose API key is in the environment as OPENAI_API_KEY and
    so on (also as file:/run/secrets/name). Needs the extra: pip install 'mediad[agent]'.
    """
    if role is None:
        if service or url or model or checked:
            raise click.UsageError("--service, --url, --model and --check need --role")
        _run_agent(host, _AGENT_PORT if port is None else port, voice or "en-us", max_calls)
    elif checked:
        from mediad.speech.check.report import report

        sys.exit(0 if uvloop.run(report(checked, role, as_json=as_json)) else 1)
    else:
        choice = Choice(role, service or "", url or "", model or "", voice or "")
        _run_role(host, _PORTS[role] if port is None else port, choice, max_calls)


def _run_agent(host: str, port: int, voice: str, max_calls: int) -> None:
    _need("pipecat", "pocketsphinx")
    from mediad.speech.agent import run_agent

    try:
        run_agent(host, port, voice=voice, max_calls=max_calls)
    except SpeechError as exc:
        raise click.ClickException(str(exc)) from exc


def _run_role(host: str, port: int, choice: Choice, max_calls: int) -> None:
    if choice.provider:
        _need("pipecat")
    elif choice.url:
        _need("openai")
    elif choice.role == "stt":
        _need("pocketsphinx")
    from mediad.speech.roles.server import run_role

    with logging_to("info"), listen(host, port) as listener:
        try:
            service = make_service(choice)
        except SpeechError as exc:
            raise click.ClickException(str(exc)) from exc
        uvloop.run(run_role(listener, choice.role, service, max_calls=max_calls))


def _need(*packages: str) -> None:
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"{', '.join(missing)} is not installed; install it with: pip install 'mediad[agent]'"
        )
