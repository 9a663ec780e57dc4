"""What a host's hook (topology/hook.sh) wrote into OVSDB, read as evidence of what its vNICs are.

* On a vNIC's interface: its guest's XML, as libvirt hands it to the hook ``qemu`` when the guest starts.
* On the bridge: the ``<hookData>`` of the hook ``network``, for each vNIC of a libvirt network that is plugged in. For
  one that a running guest gets it is all that there is, and it comes before the interface does.

Both are gzip in base64. Whoever may write to the host's OVSDB chooses these bytes: they are bounded, and a word counts
only when it is about the very vNIC it stands with: guest, MAC, interface, and iface-id, which libvirt draws anew at
each start of a vNIC that does not pin it. So what a guest left behind says nothing of the next one.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from controller.errors import LibvirtError
from controller.model.fields import parse_mac
from controller.openflow.sparse import Sparse
from controller.ovsdb.host import HookRow, VnicRow
from controller.ovsdb.wanted import HOOK_PORT
from topology.domain_xml import DomainView, VnicView, parse_domain
from topology.xml_reader import parse_uuid, parsed, read_xml, shown, text_value

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PACKED = 65_536
"""Characters of base64, as the script has it."""
MAX_XML = 1 << 18
"""Bytes of XML."""
AT_ONCE, PER_SECOND = 1 << 20, 200_000
"""Characters of XML that are read on the loop of one host's reports, however many it writes."""
_LEAST = 2048  # what one costs that makes no sense

_MARK = re.compile(r"([0-9]{1,4}) (no|refuse)")


@dataclass(frozen=True, slots=True)
class Socket:
    """Where a vNIC was plugged in."""

    vm_uuid: str
    vm: str
    mac: str
    iface_id: str | None
    network: str
    portgroup: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of one vNIC from the hook: the guest's name, and what its XML says, or else where it was plugged
    in."""

    vm: str
    xml: VnicView | None
    socket: Socket | None


def port_key(vm_uuid: str, mac: str) -> str:
    """Under which the script writes where a vNIC is plugged in."""
    return f"{HOOK_PORT}{vm_uuid}-{mac}"


def hook_status(hook: HookRow) -> dict[str, object] | None:
    """The hook of a host as people see it; None when there is none."""
    if hook.mark is None:
        return None
    found = _MARK.fullmatch(hook.mark)
    if found is None:
        return {"version": None, "refuses": False, "reason": f"its mark is not understood: {shown(hook.mark)!r}"}
    return {"version": int(found[1]), "refuses": found[2] == "refuse", "reason": ""}


class HookReader:
    """Of one host. What was read once is not read again, and of what is new only so much at a time: a megabyte takes a
    fifth of a second, which the loop has for all hosts. ``behind`` says that something was left for the next time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.behind = False
        self._domains: dict[str, DomainView | None] = {}
        self._sockets: dict[str, Socket | None] = {}
        self._clock = clock
        self._left = float(AT_ONCE)
        self._since = clock()
        self._say = Sparse(log)

    def read(self, host: str, vnics: Mapping[str, VnicRow], hook: HookRow) -> dict[str, Report]:
        """By interface; none for a vNIC that the hook said nothing of, nothing that holds, or nothing that was read
        yet."""
        now = self._clock()
        self._left = min(AT_ONCE, self._left + (now - self._since) * PER_SECOND)
        self._since, self.behind = now, False
        domains, sockets = self._domains, self._sockets
        self._domains, self._sockets = {}, {}
        found = {}
        for name, row in vnics.items():
            if row.vm_uuid is None or row.mac is None:
                continue
            report = self._of_xml(host, row, domains) or self._of_socket(host, row, hook, sockets)
            if report is not None:
                found[name] = report
        return found

    def _of_xml(self, host: str, row: VnicRow, known: Mapping[str, DomainView | None]) -> Report | None:
        if row.report is None:
            return None
        domain = self._once(host, row, row.report, self._domains, known, parse_domain)
        if domain is None or domain.uuid != row.vm_uuid:
            return None
        vnics = [vnic for vnic in domain.vnics if vnic.tap == row.interface]
        if len(vnics) != 1 or vnics[0].mac != row.mac or vnics[0].iface_id != row.iface_id:
            return None
        # Its link may have been set up or down since: libvirt calls no hook for that.
        return Report(domain.name, replace(vnics[0], link_up=True), None)

    def _of_socket(self, host: str, row: VnicRow, hook: HookRow, known: Mapping[str, Socket | None]) -> Report | None:
        packed = hook.ports.get(port_key(row.vm_uuid or "", row.mac or ""))
        if packed is None:
            return None
        socket = self._once(host, row, packed, self._sockets, known, parse_socket)
        if socket is None or (socket.vm_uuid, socket.mac, socket.iface_id) != (row.vm_uuid, row.mac, row.iface_id):
            return None
        return Report(socket.vm, None, socket)

    def _once(
        self, host: str, row: VnicRow, packed: str, found: dict[str, T | None], known: Mapping[str, T | None],
        parse: Callable[[str, str], T],
    ) -> T | None:  # fmt: skip
        """What the report says; None when it makes no sense, or others took all the time that there was."""
        if packed in known:
            found[packed] = known[packed]
        elif packed not in found:
            if self._left <= 0:
                self.behind = True
                return None
            found[packed] = self._parse(host, row, packed, parse)
        return found[packed]

    def _parse(self, host: str, row: VnicRow, packed: str, parse: Callable[[str, str], T]) -> T | None:
        self._left -= _LEAST
        try:
            xml = unpack(packed, f"host {host}")
            self._left -= len(xml)
            return parse(xml, host)
        except LibvirtError as error:
            what = shown(row.interface)
            self._say.warning("%s: what the hook says of %s is left out: %s", host, what, error)
            return None


def unpack(packed: str, where: str) -> str:
    """The XML. Raises LibvirtError at ``where`` when it is too much, or was packed otherwise."""
    if len(packed) > MAX_PACKED:
        raise LibvirtError(f"{len(packed)} characters, more than {MAX_PACKED}", where=where)
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        data = inflate.decompress(base64.b64decode(packed, validate=True), MAX_XML + 1)
        if len(data) > MAX_XML:
            raise LibvirtError(f"XML of more than {MAX_XML} bytes", where=where)
        if not inflate.eof:
            raise LibvirtError("the packed XML is cut off", where=where)
        return data.decode()
    except (binascii.Error, zlib.error, ValueError) as error:
        raise LibvirtError(f"is no XML packed by gzip and base64: {shown(str(error))}", where=where) from None


def parse_socket(xml: str, host: str) -> Socket:
    """The vNIC of a ``<hookData>`` of the operations port-created and port-deleted. Raises LibvirtError.

    Source: networkRunHook and virNetworkPortDefFormatBuf of libvirt 9.0.0.
    """
    where = f"host {host}, hookData"
    root = read_xml(xml, "hookData", where)

    def text(path: str, what: str) -> str:
        value = text_value(root.findtext(path), what, where)
        if value is None:
            raise LibvirtError(f"it has no {what}", where=where)
        return value

    def attribute(path: str, name: str) -> str | None:
        element = root.find(path)
        return element.get(name) if element is not None else None

    mac = parsed(attribute("networkport/mac", "address"), parse_mac, "MAC", where)
    uuid = parsed(text("networkport/owner/uuid", "owner's uuid"), parse_uuid, "owner's uuid", where)
    if mac is None or uuid is None:
        raise LibvirtError("it has no MAC", where=where)
    interface_id = attribute("networkport/virtualport/parameters", "interfaceid")
    return Socket(
        vm_uuid=uuid,
        vm=text("networkport/owner/name", "owner's name"),
        mac=mac,
        iface_id=parsed(interface_id, parse_uuid, "interfaceid", where),
        network=text("network/name", "network"),
        portgroup=text_value(root.findtext("networkport/group"), "group", where),
    )
