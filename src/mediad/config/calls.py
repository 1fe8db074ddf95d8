"""Calls: where they come from, and the agent or the services that they are linked to."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mediad.config.checks import check_readable
from mediad.config.types import Headers, Host, Networks, Port, Prompts, Seconds, Table, Urls

__all__ = ["Ai", "AudioSocket", "Llm", "Pipeline", "ServiceSettings", "Stt", "Tts"]


class AudioSocket(Table):
    """The listener that Asterisk connects to."""

    host: Host = "127.0.0.1"
    """Address to bind; 0.0.0.0 for every interface (then set ``allow``)."""
    port: Port = 9092
    """TCP port; 0 takes a free one."""
    allow: Networks = ()
    """Networks that may connect, as ["10.0.0.0/8"]; empty allows all that reach the address."""
    proxy_protocol: Literal["off", "v2"] = "off"
    """v2: each connection begins with a balancer's header that tells the caller's address, which
    ``allow`` and ``max_connects_per_s`` then judge.
    """
    proxies: Networks = ()
    """Networks of the balancers, for ``proxy_protocol``; empty believes all that connect."""
    codec: Literal["auto", "slin", "ulaw", "alaw"] = "auto"
    """What messages of kind 0x10 carry; auto finds out by the byte rate of the first 200 ms."""
    g711: Literal["ulaw", "alaw"] = "ulaw"
    """Which G.711 law auto takes."""
    uuid_timeout_s: Seconds = 5.0
    """Close a connection whose UUID has not come after this long, in seconds."""
    max_connects_per_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 500.0
    """Connections a second from one address, after twice as many at once; one more gets 0x00."""
    dead_peer_s: Seconds = 20.0
    """Find a peer that vanished without a word after this long, in seconds (keep-alive,
    TCP_USER_TIMEOUT).
    """
    max_calls: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Calls at once; one more gets 0x00 at once, so that its dialplan goes on."""
    unknown_calls: Literal["accept", "reject"] = "accept"
    """What becomes of a call whose UUID nobody has registered with the API; reject sends 0x00."""
    max_call_s: Seconds = 14_400.0
    """Longest call, in seconds; then it is hung up."""
    drain_timeout_s: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] = 300.0
    """How long live calls may go on after SIGTERM, in seconds; then they are hung up."""
    playout_max_s: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = 60.0
    """Agent audio held per call, in seconds; what comes beyond it is refused and counted."""
    playout_max_bytes: Annotated[int, Field(ge=1 << 20)] = 512 << 20
    """Agent audio held over all calls, in bytes; what comes beyond it is refused and counted."""

    @model_validator(mode="after")
    def _check_proxies(self) -> Self:
        if self.proxy_protocol != "off" and self.allow and not self.proxies:
            raise ValueError(
                "allow is worth nothing while anybody may say for whom it connects: set proxies"
            )
        return self


class Ai(Table):
    """The link to the AI agent: one WebSocket per call."""

    link: Literal["agent", "pipeline"] = "agent"
    """What a call without an agent of its own is linked to: one agent that hears and speaks, or the
    services of ``[pipeline]``, between which mediad takes the turns."""
    agent_url: Urls = ("ws://127.0.0.1:8765",)
    """Where the agent is, ws:// or wss://; {call_id}, {from} and {to} may stand in it. A list names
    stand-ins, tried in order. Empty: agents dial in to ``listen_port``."""
    headers: Headers = {}
    """HTTP headers for the agent, as {Authorization = "Bearer …"}; each value is a secret."""
    listen_host: Host = "127.0.0.1"
    """Address to bind for agents that dial in."""
    listen_port: Port = 8766
    """TCP port for agents that dial in, opened when ``agent_url`` is empty; 0 takes a free one."""
    token_s: Seconds = 30.0
    """How long the token of an agent that dials in is good, in seconds."""
    connect_timeout_s: Seconds = 10.0
    """Give up when no agent can be had after this long, in seconds."""
    reconnect_s: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 30.0
    """How long to try again when the agent is lost within a call, in seconds."""
    ping_s: Seconds = 2.0
    """Ping the agent this often, in seconds; one that takes longer to answer is slow and gets no
    audio, one that takes five times as long is lost."""
    prompts: Prompts = {}
    """WAV files that the API can play on calls, by name, as {hold = "/etc/mediad/hold.wav"}."""
    unavailable_prompt: Path | None = None
    """WAV file (s16le) the caller hears when no agent can be had; a tone without one."""
    ca_file: Path | None = None
    """PEM file with the certificate authorities for wss://; the system's without one."""
    client_cert: Path | None = None
    """PEM file with the certificate that mediad shows over wss:// to an agent or a service of its
    own settings that asks for it, as with ``headers``."""
    client_key: Path | None = None
    """PEM file with its key, without a password; it may also stand in ``client_cert``."""

    @field_validator("prompts")
    @classmethod
    def _check_prompts(cls, prompts: dict[str, Path]) -> dict[str, Path]:
        for path in prompts.values():
            check_readable(path)
        return prompts

    @field_validator("unavailable_prompt", "ca_file", "client_cert", "client_key")
    @classmethod
    def _check_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            check_readable(path)
        return path

    @model_validator(mode="after")
    def _check_client(self) -> Self:
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("client_key is the key of a client_cert, and there is none")
        return self


class ServiceSettings(Table):
    """What the tables of the pipeline's three services have in common: one WebSocket per call and
    service. TLS, pings and how long to look for one are as in ``[ai]``.
    """

    url: Urls
    """Where the service is, ws:// or wss://; {call_id}, {from} and {to} may stand in it. A list
    names stand-ins, tried in order."""
    headers: Headers = {}
    """HTTP headers for the service, as {Authorization = "Bearer …"}; each value is a secret."""
    connect_timeout_s: Seconds = 2.0
    """Go on with the next address when one has not opened a WebSocket after this long, in seconds.
    """
    timeout_s: Seconds = 2.0
    """Ask the next address when nothing of an answer has come for this long, in seconds."""
    budget_s: Seconds = 5.0
    """Give an answer up of which nothing has come after this long, all addresses included, in
    seconds."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        if not urls:
            raise ValueError("needs at least one address")
        return urls


class Stt(ServiceSettings):
    """The pipeline's service that hears."""

    url: Urls = ("ws://127.0.0.1:8771",)


class Llm(ServiceSettings):
    """The pipeline's service that thinks."""

    url: Urls = ("ws://127.0.0.1:8772",)
    timeout_s: Seconds = 4.0
    budget_s: Seconds = 10.0


class Tts(ServiceSettings):
    """The pipeline's service that speaks."""

    url: Urls = ("ws://127.0.0.1:8773",)
    voice: str = ""
    """Name of the voice, as the service knows it; empty takes the service's own choice."""
    rate: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    """How fast to speak, 1.0 being the voice's own pace."""


class Pipeline(Table):
    """Calls on which mediad itself takes the turns, between the services below. An agent's own
    configuration goes before ``prompt``, ``first_message`` and ``language``.
    """

    prompt: str = "You are a friendly assistant on the telephone. Answer in one or two sentences."
    """What the language model is told of its part."""
    first_message: str = ""
    """What the agent says first; empty lets the language model begin."""
    language: Annotated[str, Field(max_length=35)] = ""  # RFC 5646, 4.4.1
    """What is spoken, as en-US, told to every service; empty leaves it to them."""
    fallback_prompt: str = ""
    """What the caller hears when a service stays silent: a text to speak, or a WAV file (s16le)
    when it ends in .wav; a tone without one."""
    end_of_turn: Literal["silence", "stt", "both"] = "silence"
    """Who finds that the caller has finished: silence, the STT service, or whoever is first."""
    end_silence_s: Annotated[float, Field(ge=0.1, le=10)] = 0.7
    """How much silence ends a caller's turn, in seconds."""
    no_input_s: Seconds = 8.0
    """Ask whether anybody is there when the caller has been silent for this long, in seconds."""
    no_input_prompt: Annotated[str, Field(min_length=1)] = "Are you still there?"
    """What the agent says then; asked twice in vain, it ends the call."""

    @field_validator("fallback_prompt")
    @classmethod
    def _check_prompt(cls, prompt: str) -> str:
        if prompt.endswith(".wav"):
            check_readable(Path(prompt))
        return prompt
