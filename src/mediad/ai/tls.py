"""TLS towards agents: the context for ``wss://``, and what a refusal is called."""

import ssl
from pathlib import Path
from typing import NamedTuple

from mediad.config import Ai
from mediad.errors import ConfigError

__all__ = ["ClientTls", "cause_of", "client_tls"]

# Verification results of OpenSSL (x509_vfy.h) by what an operator has to mend.
_CAUSES = {
    2: "tls_unknown_ca",  # unable to get issuer certificate
    10: "tls_expired",
    18: "tls_unknown_ca",  # self-signed certificate
    19: "tls_unknown_ca",  # self-signed certificate in the chain
    20: "tls_unknown_ca",  # unable to get local issuer certificate
    21: "tls_unknown_ca",  # unable to verify the first certificate
    62: "tls_host_name",
    64: "tls_host_name",  # of an address
}


class ClientTls(NamedTuple):
    """The TLS contexts for ``wss://``; they check certificate and host name."""

    ours: ssl.SSLContext
    """For the addresses of the settings: who asks for ``client_cert`` there gets it."""
    others: ssl.SSLContext
    """For those that customers have set: nobody there gets to know who we are."""


def client_tls(settings: Ai) -> ClientTls:
    """Return what the settings ask for.

    Raises:
        ConfigError: If ``ca_file`` holds no certificates, or ``client_cert`` and ``client_key`` do
        not belong together.
    """
    others = _context(settings)
    if settings.client_cert is None:
        return ClientTls(others, others)
    ours = _context(settings)
    _load_certificate(ours, settings.client_cert, settings.client_key)
    return ClientTls(ours, others)


def _context(settings: Ai) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as exc:  # ssl.SSLError is one
        raise ConfigError(f"[ai] ca_file: {settings.ca_file}: {exc}") from exc


def _load_certificate(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    try:
        # With a password given, OpenSSL does not ask the terminal for that of a locked key.
        context.load_cert_chain(certificate, key, password="")
    except OSError as exc:
        raise ConfigError(
            f"[ai] client_cert: {certificate} and the key in {key or certificate} cannot be used "
            f"(a key must be without a password): {exc}"
        ) from exc


def cause_of(exc: ssl.SSLError) -> tuple[str, str, str]:
    """Return what a refused handshake is counted as, what is wrong in words with a %s, and what
    that stands for.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        cause = _CAUSES.get(exc.verify_code, "tls_certificate")
        return cause, "its certificate is refused: %s", exc.verify_message
    return "tls_handshake", "TLS failed: %s", exc.reason or str(exc)
