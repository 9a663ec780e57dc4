"""DNS for the whole fleet: questions of any host's vNICs in, answers out, by what their network knows or others do."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.resolver

from controller import meters
from controller.desired import LEASES, Desired
from controller.errors import OpenFlowError, PacketError
from controller.leases import Leases
from controller.model.dns import Dns, Forwarder
from controller.model.kinds import network_mtu, overlay_mtu
from controller.model.network import NetworkSpec
from controller.openflow.decode import PacketIn
from controller.services import datagrams, dns_message, tcp
from controller.services.askers import Asker, Vnic, answer_to, asker_of, is_there
from controller.services.budget import Budget
from controller.services.datagrams import Datagram
from controller.services.dns_message import Query
from controller.services.dns_relay import Relay
from controller.services.dns_zone import Zone, zone_of
from controller.services.excess import DNS, Excess
from controller.services.intake import Intake
from controller.services.pool import GRACE_SECONDS
from controller.store.rows import Change

log = logging.getLogger(__name__)

RESOLV_CONF = Path("/etc/resolv.conf")
_LOOK_SECONDS = 10.0  # between looks at it
_ZONE_SECONDS = 30.0  # leases end without a row that changes
_REST = 20  # times as long as it took to look a network up it is not looked up anew: many leases may change at once
_MOST, _MOST_EACH = 512, 32  # questions to others under way at once, in all and of one vNIC
_SHARES = 8  # of what is free there, one vNIC has one
_HEADERS = 28  # bytes of IPv4 and UDP
_RATE, _BURST = 500.0, 1000.0  # questions a second, and at once, of the whole fleet; one takes 0.3 ms (measured)

Send = Callable[[str, bytes], bool]


@dataclass(slots=True)
class _Known:
    """What is known of a network. ``room`` is bytes of an answer that reach its guests whole. It is looked up anew at
    ``until``, and ``rested`` is the soonest that this may be."""

    zone: Zone
    dns: Dns
    asks_system: bool
    room: int
    until: float
    rested: float

    def servers(self, name: str, system: Sequence[str]) -> Sequence[str]:
        """Who is asked about a name: the forwarders of the innermost domain that it is in."""
        by_domain: dict[str, list[Forwarder]] = {}
        for each in self.dns.forwarders or ():
            by_domain.setdefault(each.domain or "", []).append(each)
        within = (domain for domain in by_domain if domain and f".{name}".endswith(f".{domain}"))
        found = by_domain.get(max(within, key=len, default=""))
        if found is None:
            return system if self.asks_system else ()
        own = [each.addr for each in found if each.addr is not None]
        return own or system


class DnsService:
    """Everything on the loop. ``deliver`` is the number of the table that hands a packet to the vNIC; ``send`` gives a
    message to a host's switch."""

    def __init__(
        self, desired: Desired, deliver: int, send: Send, resolv_conf: Path = RESOLV_CONF, relay: Relay | None = None,
        excess: Excess | None = None,
    ) -> None:  # fmt: skip
        self._desired = desired
        self._deliver = deliver
        self._send = send
        self._resolv_conf = resolv_conf
        self._system: Sequence[str] = ()
        self._known: dict[str, _Known] = {}
        self._relay = relay or Relay()
        self._excess = excess or Excess()
        self._each = Budget(meters.RATE, meters.BURST)
        self._intake = Intake(DNS, _RATE, _BURST, self._answer, self._excess)
        self._asked: dict[tuple[Asker, str, int, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Answers, and looks who the controller's machine asks. Until it is cancelled; then nobody is asked any
        more."""
        answering = asyncio.get_running_loop().create_task(self._intake.run())
        try:
            while True:
                await self.look()
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for task in (answering, *self._asked.values()):
                task.cancel()

    async def look(self) -> None:
        """Read who the controller's machine asks."""
        self._system = await asyncio.to_thread(_system_servers, self._resolv_conf)

    def changed(self, changes: Iterable[Change]) -> None:
        """Rows changed: what was known of these networks is looked up anew when somebody asks."""
        for change in changes:
            old, new = change.old and change.old.spec, change.new and change.new.spec
            if old == new:
                continue
            match change.kind:
                case "Host":
                    self._known.clear()  # the networks' MTU may be another
                case "Port":
                    for spec in (old, new):
                        self._look_soon(str((spec or {}).get("network")))
                case "Network":
                    self._known.pop(change.name, None)
                case _ if change.kind == LEASES:
                    self._look_soon(change.name.partition("/")[0])

    def _look_soon(self, network: str) -> None:
        if (known := self._known.get(network)) is not None:
            known.until = min(known.until, known.rested)

    def take(self, host: str, packet: PacketIn) -> None:
        """A packet that a vNIC of the host sent to its gateway as a name server."""
        try:
            asker = asker_of(self._desired, host, packet)
            if not self._each.spend(asker.vnic, time.monotonic()):
                self._excess.note(DNS, asker.vnic)
                raise PacketError(f"{asker.port} asks too much")
            if datagrams.protocol(packet.data) == datagrams.TCP:
                self._send(host, answer_to(asker, tcp.refusal(packet.data), self._deliver))
            else:
                said = datagrams.decode(packet.data)
                self._intake.put(asker, (said.ipv4_src, said.udp_src, said.payload[:2]), said)
        except (OpenFlowError, PacketError) as error:
            log.debug("%s: DNS: %s", host, error)

    def _answer(self, asker: Asker, said: Datagram) -> None:
        try:
            self._look_up(asker, said)
        except PacketError as error:
            log.debug("%s: DNS: %s", asker.host, error)

    def _look_up(self, asker: Asker, said: Datagram) -> None:
        """Raises PacketError."""
        spec = self._desired.networks.get(asker.network)
        if spec is None or not spec.answers_dns or not is_there(self._desired, asker):
            return
        query = dns_message.decode(said.payload)
        known = self._of(asker.network, spec)
        servers = known.servers(query.name, self._system)
        plain = known.dns.forward_plain_names
        found = dns_message.find(known.zone, query, asks=bool(servers), asks_plain=plain)
        if found is not None:
            self._reply(asker, said, dns_message.encode(query, found, known.room))
            return
        key = (asker, said.ipv4_src, said.udp_src, query.message.id)
        if key in self._asked or not self._may_ask(asker.vnic):
            return  # it waits already, or asks again later
        task = asyncio.get_running_loop().create_task(self._ask(asker, said, query, servers, known.room))
        self._asked[key] = task
        task.add_done_callback(lambda _: self._asked.pop(key, None))

    def _may_ask(self, vnic: Vnic) -> bool:
        """Whether others are asked once more for this vNIC: while those that it waits for are few beside what is free
        (Choudhury and Hahne, Dynamic queue length thresholds, 1998). However many vNICs wait for servers that do not
        answer, one more finds room."""
        free = _MOST - len(self._asked)
        mine = sum(other.vnic == vnic for other, *_ in self._asked)
        return free > 0 and mine < min(_MOST_EACH, max(1, free // _SHARES))

    async def _ask(self, asker: Asker, said: Datagram, query: Query, servers: Sequence[str], room: int) -> None:
        """What others say."""
        try:
            got = await self._relay.ask(servers, lambda number: dns_message.asking(query, number, room))
            if got is None:
                payload = dns_message.encode(query, dns_message.FAILED, room)
            else:
                payload = dns_message.passed_on(query, *got, room)
            if is_there(self._desired, asker):
                self._reply(asker, said, payload)
        except Exception:
            log.exception("%s: DNS: %r is not answered", asker.port, query.name)

    def _reply(self, asker: Asker, said: Datagram, payload: bytes) -> None:
        back = Datagram(
            said.eth_dst, said.eth_src, said.ipv4_dst, said.ipv4_src, dns_message.PORT, said.udp_src, payload
        )
        self._send(asker.host, answer_to(asker, datagrams.encode(back), self._deliver))

    def _of(self, name: str, spec: NetworkSpec) -> _Known:
        now = time.monotonic()
        known = self._known.get(name)
        if known is None or known.until <= now:
            known = self._known[name] = self._look(name, spec)
        return known

    def _look(self, name: str, spec: NetworkSpec) -> _Known:
        began = time.monotonic()
        wanted = spec.dns or Dns()
        forwarders = wanted.forwarders
        general = forwarders is not None and (not forwarders or any(each.domain is None for each in forwarders))
        asks_system = not general and spec.mode != "isolated"
        since = time.time() - GRACE_SECONDS
        leases = self._desired.leases.get(name, Leases())
        zone = zone_of(name, spec, self._desired.registered.values(), leases, since)
        room = network_mtu(spec, overlay_mtu(self._desired.hosts.values())) - _HEADERS
        ended = time.monotonic()
        rested = ended + _REST * (ended - began)
        return _Known(zone, wanted, asks_system, min(room, dns_message.LARGEST), ended + _ZONE_SECONDS, rested)


def _system_servers(path: Path) -> tuple[str, ...]:
    """The name servers that the controller's machine has, in their order."""
    try:
        found = dns.resolver.Resolver(str(path)).nameservers
    except (dns.exception.DNSException, OSError, ValueError) as error:
        log.debug("%s names no name server: %s", path, error)
        return ()
    return tuple(map(str, found))
