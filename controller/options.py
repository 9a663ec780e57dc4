"""What ``fleetswitch up`` was told: where state lies, where the controller listens, what hosts are told."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from controller.errors import InvalidInput, Problem

DEFAULT_STATE_DIR = Path("/var/lib/fleetswitch")
DEFAULT_API_SOCKET = Path("/run/fleetswitch/api.sock")
DEFAULT_API_TCP = "127.0.0.1:8640"
# Without TLS nobody but this machine is listened to until the operator names an address.
DEFAULT_LISTEN = ("tcp:127.0.0.1:6653",)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of this controller: what it shows to hosts, and whose signature it wants to see on theirs."""

    key: Path
    certificate: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a controller, checked. Raises InvalidInput with every problem.

    ``listen`` and ``advertise`` are ``tcp:ADDRESS:PORT`` or ``ssl:ADDRESS:PORT``: where OpenFlow is awaited, and what
    the hosts' Open vSwitch is told to connect to. The second follows from the first, unless that is a wildcard, which
    no host can connect to. ``store`` is None for a private ovsdb-server, else ``tcp:A:6641,tcp:B:6641``. ``api_tcp`` is
    ``ADDRESS:PORT``, None for none. ``tls`` is for every ``ssl:`` address, those of hosts' OVSDB included.
    """

    state_dir: Path = DEFAULT_STATE_DIR
    listen: tuple[str, ...] = DEFAULT_LISTEN
    store: str | None = None
    api_socket: Path = DEFAULT_API_SOCKET
    api_tcp: str | None = DEFAULT_API_TCP
    log_level: str = "info"
    advertise: tuple[str, ...] = ()
    tls: Tls | None = None

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        wildcard = False
        for text in self.listen:
            address = _endpoint("--listen", text, problems)
            wildcard = wildcard or (address is not None and address.is_unspecified)
        for text in self.advertise:
            address = _endpoint("--advertise", text, problems)
            if address is not None and address.is_unspecified:
                problems.append(Problem("--advertise", f"{text} is no address to connect to", "name this machine's"))
        if not self.listen:
            problems.append(Problem("--listen", "no address is given", f"for example {DEFAULT_LISTEN[0]}"))
        if self.tls is None and any(text.startswith("ssl:") for text in (*self.listen, self.store or "")):
            problems.append(Problem("--listen", "ssl: needs certificates", "add --tls-key, --tls-cert and --tls-ca"))
        for path in (self.tls.key, self.tls.certificate, self.tls.ca) if self.tls is not None else ():
            if not os.access(path, os.R_OK):
                problems.append(Problem("--tls-key, --tls-cert, --tls-ca", f"{path} cannot be read", "name PEM files"))
        if wildcard and not self.advertise:
            problems.append(Problem("--listen", "a wildcard is not an address that hosts can be told",
                                    "add --advertise tcp:ADDRESS:6653 with this machine's address"))  # fmt: skip
        if self.api_tcp is not None:
            try:
                parse_loopback(self.api_tcp)
            except InvalidInput as error:
                problems += error.problems
        if problems:
            raise InvalidInput(problems)
        if not self.advertise:
            object.__setattr__(self, "advertise", self.listen)


def parse_loopback(text: str) -> tuple[str, int]:
    """``ADDRESS:PORT`` of the API's TCP listener as (address, port); port 0 lets the system choose.

    Raises InvalidInput, also for an address that others can reach: there is neither TLS nor a token yet.
    """
    host, colon, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if not colon or address is None or not _is_port(port, zero=True):
        raise InvalidInput([Problem("--api-tcp", f"{text!r} is no address", "write 127.0.0.1:8640 or [::1]:8640")])
    if not address.is_loopback:
        raise InvalidInput([Problem("--api-tcp", f"{host} can be reached from other machines",
                                    "use 127.0.0.1 and a tunnel (ssh -L 8640:127.0.0.1:8640); the API has no TLS and "
                                    "no tokens yet")])  # fmt: skip
    return host, int(port)


def _endpoint(where: str, text: str, problems: list[Problem]) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    scheme, _, rest = text.partition(":")
    host, _, port = rest.rpartition(":")
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        address = None
    if scheme in {"tcp", "ssl"} and address is not None and _is_port(port, zero=False):
        return address
    problems.append(Problem(where, f"{text!r} is no address", "write tcp:ADDRESS:6653 or ssl:ADDRESS:6653, an IP"))
    return None


def _is_port(text: str, zero: bool) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and (0 if zero else 1) <= int(text) <= 65535
