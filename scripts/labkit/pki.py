"""An authority of the lab's own, and what it signs, named as libvirt's page on TLS names the files."""

from __future__ import annotations

from pathlib import Path

from .run import run

_CA = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign")


class Pki:
    """An authority in a folder, which is made when it is not there: cacert.pem and cakey.pem."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ca, self._key = folder / "cacert.pem", folder / "cakey.pem"
        if not self._ca.exists():
            folder.mkdir(parents=True)
            _certificate(self._ca, self._key, "/CN=authority of a lab", _CA)

    def issue(self, name: str, folder: Path, side: str) -> None:
        """Into the folder: the authority's certificate, and as {side}cert.pem and {side}key.pem a pair for an IPv4
        address; side is "server" or "client". A folder of a client is what libvirt's URIs take as pkipath."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cacert.pem").write_bytes(self._ca.read_bytes())
        extensions = ("basicConstraints=critical,CA:FALSE", f"subjectAltName=IP:{name}",
                      "keyUsage=critical,digitalSignature,keyEncipherment", f"extendedKeyUsage={side}Auth")  # fmt: skip
        signed = ["-CA", str(self._ca), "-CAkey", str(self._key)]
        _certificate(folder / f"{side}cert.pem", folder / f"{side}key.pem", f"/CN={name}", extensions, *signed)


def _certificate(made: Path, key: Path, subject: str, extensions: tuple[str, ...], *options: str) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "30", "-subj", subject]
    added = [word for extension in extensions for word in ("-addext", extension)]
    run([*argv, *options, *added, "-keyout", str(key), "-out", str(made)])
