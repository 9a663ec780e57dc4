"""The base of an app: one networking feature, rows in, flows out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from controller.pipeline.tables import Flow, Table
from controller.reader import Reader
from controller.views import ForwardView, HostView, NetworkView, PortView, RegistrationView


class Scope(IntEnum):
    """For what a block is computed, and where it is installed.

    FLEET: once, on every host. NETWORK: a network, on every host that carries it. PORT: a vNIC, on every host that
    carries its network. LOCAL: a vNIC, on its own host. HOST: a host, on itself. MEMBER: a network on a host that
    carries it, there. REGISTRATION: a vNIC that is registered with addresses, running or not, on every host that
    carries its network. FORWARD: a port forward, on the hosts whose external address it means. PEER: a host, on the
    others with which it exchanges packets by tunnels.
    """

    FLEET = 0
    NETWORK = 1
    PORT = 2
    LOCAL = 3
    HOST = 4
    MEMBER = 5
    REGISTRATION = 6
    FORWARD = 7
    PEER = 8


@dataclass(frozen=True, slots=True)
class BlockId:
    """A block by its app, scope and objects: () of FLEET, (name,) of most, (network, host) of MEMBER."""

    app: str
    scope: Scope
    objects: tuple[str, ...]

    @property
    def row(self) -> str:
        """The row that caused it, as people name it."""
        match self.scope:
            case Scope.FLEET:
                return "every host"
            case Scope.NETWORK:
                return f"Network {self.objects[0]}"
            case Scope.PORT | Scope.LOCAL | Scope.REGISTRATION:
                return f"Port {self.objects[0]}"
            case Scope.HOST | Scope.PEER:
                return f"Host {self.objects[0]}"
            case Scope.MEMBER:
                return f"Network {self.objects[0]} on Host {self.objects[1]}"
            case Scope.FORWARD:
                return f"PortForward {self.objects[0]}"


class App:
    """A feature. It names its tables, reads through the fabric, yields flows with a reason, and holds no state.

    An app overrides the scopes that it needs.
    """

    tables: tuple[Table, ...] = ()

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        """Flows that every host has."""
        yield from ()

    def network(self, network: NetworkView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a network, the same on every host that carries it."""
        yield from ()

    def port(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a vNIC, the same on every host that carries its network."""
        yield from ()

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a vNIC on its own host."""
        yield from ()

    def host(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a host on itself."""
        yield from ()

    def member(self, network: NetworkView, host: HostView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a network on one of the hosts that carry it."""
        yield from ()

    def registration(self, registration: RegistrationView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a vNIC that is registered with addresses, the same on every host that carries its network."""
        yield from ()

    def forward(self, forward: ForwardView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a port forward on the hosts whose external address it means."""
        yield from ()

    def peer(self, host: HostView, fabric: Reader) -> Iterator[Flow]:
        """Flows of a host on the others with which it exchanges packets by tunnels, the same on each."""
        yield from ()
