"""Which libvirt addresses a Host may name."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from controller.errors import InvalidInput, Problem

_PARAMETERS = {
    "qemu+unix": {"socket", "mode"},
    "qemu+tcp": {"mode"},
    "qemu+tls": {"pkipath", "tls_priority", "mode"},
    "test": set[str](),
}
_REMEDY = "qemu+tls://HOST/system, qemu+tcp://HOST/system, or qemu+unix:///system?socket=PATH"


def check_uri(uri: str, where: str = "libvirt") -> str:
    """``uri``, when the fleet can use it; InvalidInput at ``where`` otherwise.

    ssh is not among them: libvirt starts a process of ssh for each connection, which may ask a terminal. ``no_verify``
    neither: TLS that trusts anybody. ``test:///`` is libvirt's own mock, for tests.
    """

    def refuse(what: str) -> InvalidInput:
        return InvalidInput([Problem(where, what, _REMEDY)])

    if not uri.isascii() or not uri.isprintable() or " " in uri:
        raise refuse(f"libvirt URI {uri!r} holds spaces or unprintable characters")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise refuse(f"libvirt URI {uri!r}: {error}") from None
    allowed = _PARAMETERS.get(parts.scheme)
    if allowed is None:
        raise refuse(f"libvirt URI {uri!r} is neither qemu+tls, qemu+tcp nor qemu+unix")
    if parts.username is not None or parts.fragment:
        raise refuse(f"libvirt URI {uri!r} has a user or a fragment")
    if parts.scheme in ("qemu+tcp", "qemu+tls"):
        if not parts.hostname:
            raise refuse(f"libvirt URI {uri!r} names no host")
        if port == 0:
            raise refuse(f"libvirt URI {uri!r} has port 0")
    elif parts.netloc:
        raise refuse(f"libvirt URI {uri!r} is local and names a host")
    if parts.scheme != "test" and parts.path != "/system":
        raise refuse(f"libvirt URI {uri!r} has the path {parts.path!r}, not /system")
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            raise refuse(f"libvirt URI {uri!r} has the parameter {name!r}, which {parts.scheme} does not take here")
    return uri
