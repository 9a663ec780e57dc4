"""Router advertisements: a vNIC that asks for routers is told by the controller of the gateway of its network.

The question goes nowhere else, and the vNIC's meter bounds how often it is asked.
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

_IPV6, _ICMPV6, _ROUTER_SOLICITATION = 0x86DD, 58, 133  # RFC 4861, 4.1


class Ra(App):
    tables = (GATEWAY,)

    def local(self, port: PortView, fabric: Reader) -> Iterator[Flow]:
        network = fabric.network(port.network)
        if network is None or network.gateway is None or not network.gateway.ipv6 or port.arriving:
            return
        asks: dict[str, Value] = {"eth_type": _IPV6, "ip_proto": _ICMPV6, "icmpv6_type": _ROUTER_SOLICITATION}
        yield GATEWAY.flow(
            Priority.EXCEPTION,
            match(in_port=port.ofport, **asks),
            Controller(meter_id=port.ofport),
            why="asks for routers; the controller answers",
        )
