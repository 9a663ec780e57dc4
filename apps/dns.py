"""DNS: what a vNIC asks the gateway of its network as a name server goes to the controller, and nowhere else.

TCP goes there too, to be refused at once. Each vNIC has a meter of its own, the one that it has for DHCP.
"""

from __future__ import annotations

from collections.abc import Iterator

from controller.openflow.actions import Controller
from controller.openflow.match import Value
from controller.pipeline.actions import match
from controller.pipeline.app import App
from controller.pipeline.tables import GATEWAY, Flow, Priority
from controller.reader import Reader
from controller.views import PortView

_IPV4, _TCP, _UDP, _DNS = 0x0800, 6, 17, 53


class Dns(App):
    tables = (GATEWAY,)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or not network.gateway.dns or port.arriving:
            return
        gateway = network.gateway
        for address in gateway.ipv4:
            asks: dict[str, Value] = {
                "in_port": port.ofport, "eth_dst": gateway.mac, "eth_type": _IPV4, "ipv4_dst": address
            }  # fmt: skip
            yield GATEWAY.flow(
                Priority.EXCEPTION, match(**asks, ip_proto=_UDP, udp_dst=_DNS), Controller(meter_id=port.ofport),
                why="asks for a name; the controller answers",
            )  # fmt: skip
            yield GATEWAY.flow(
                Priority.EXCEPTION, match(**asks, ip_proto=_TCP, tcp_dst=_DNS), Controller(meter_id=port.ofport),
                why="asks for a name by TCP; the controller refuses that",
            )  # fmt: skip
