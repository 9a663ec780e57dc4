"""Whose certificate a TLS peer has shown: hosts are known by the name of their Host, in OpenFlow and in OVSDB alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def certificate_names(certificate: Any) -> tuple[str, ...]:
    """The common name and the DNS names of a verified peer certificate, as ``ssl.getpeercert`` gives it."""
    if not certificate:
        return ()
    names = [value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"]
    names += [value for key, value in certificate.get("subjectAltName", ()) if key == "DNS"]
    return tuple(dict.fromkeys(names))


def anothers(names: Sequence[str], host: str) -> str | None:
    """Why whoever showed a certificate with these names is not that host; None when it is."""
    if host in names:
        return None
    return f"a certificate of {' or '.join(names)[:200] or 'nobody'} is not this host's"


def carry(host: str) -> str:
    """What to type so that the host is known."""
    return f"on {host}: ovs-vsctl set-ssl KEY CERTIFICATE CA, with the name {host} in the certificate"
