"""Certificates for tests, made with the openssl command."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple

__all__ = ["Authority", "Pair"]

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
# `openssl ca` is the only one that can give a certificate any two dates.
_CONFIG = """\
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""


class Pair(NamedTuple):
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path

    def server(self, asks_for: Path | None = None) -> ssl.SSLContext:
        """Return a server's context; it asks for a certificate that an authority has signed."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        if asks_for is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(asks_for)
        return context


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        (folder / "config").write_text(_CONFIG)
        (folder / "index").touch()
        self._openssl(
            *("req", "-x509", *_KEY, "-subj", "/CN=test authority"),
            *("-keyout", "ca.key", "-out", "ca.pem"),
            *("-addext", "keyUsage=critical,keyCertSign"),
        )
        self.certificate = folder / "ca.pem"

    def issue(self, name: str = "IP:127.0.0.1", until: str = "20991231000000Z") -> Pair:
        """Sign a certificate for a subjectAltName, good until a date."""
        file = f"{name.translate(str.maketrans(':.', '__'))}-{until}"
        self._openssl(
            *("req", *_KEY, "-subj", "/CN=test", "-addext", f"subjectAltName={name}"),
            *("-keyout", f"{file}.key", "-out", f"{file}.csr"),
        )
        self._openssl(
            *("ca", "-batch", "-notext", "-config", "config", "-cert", "ca.pem"),
            *("-keyfile", "ca.key", "-in", f"{file}.csr", "-out", f"{file}.pem"),
            *("-startdate", "20200101000000Z", "-enddate", until),
        )
        return Pair(self._folder / f"{file}.pem", self._folder / f"{file}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)
