"""Which libvirt addresses a Host may name."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

_PARAMETERS = {
    "qemu+unix": {"socket", "mode"},
    "qemu+tcp": {"mode"},
    "qemu+tls": {"pkipath", "tls_priority", "mode"},
    "test": set[str](),
    "test+unix": {"socket"},
}
_REMEDY = "write qemu+tls://HOST/system, qemu+tcp://HOST/system or qemu+unix:///system?socket=/PATH"


def check_uri(uri: str) -> str:
    """``uri``, when the fleet can use it. Raises ValueError with what is wrong and, after ``; ``, what would be right.

    ssh is not among them: libvirt starts a process of ssh for each connection, which may ask a terminal. ``no_verify``
    neither: TLS that trusts anybody. ``test:///`` and ``test+unix:///`` are libvirt's own mock, for tests.
    """
    if (wrong := _wrong(uri)) is not None:
        raise ValueError(f"{uri!r} is no libvirt URI that is supported: it {wrong}; {_REMEDY}")
    return uri


def _wrong(uri: str) -> str | None:
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        return "holds spaces or unprintable characters"
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        return f"cannot be read ({error})"
    allowed = _PARAMETERS.get(parts.scheme)
    if allowed is None:
        return "is neither qemu+tls, qemu+tcp nor qemu+unix"
    if parts.username is not None or parts.fragment:
        return "has a user or a fragment"
    if parts.scheme in ("qemu+tcp", "qemu+tls"):
        if not parts.hostname:
            return "names no host"
        if port == 0:
            return "has port 0"
    elif parts.netloc:
        return "is local and names a host"
    if parts.scheme.startswith("qemu") and parts.path != "/system":
        return f"has the path {parts.path!r}, not /system"
    for name, _ in parse_qsl(parts.query, keep_blank_values=True):
        if name not in allowed:
            return f"has the parameter {name!r}, which {parts.scheme} does not take here"
    return None
