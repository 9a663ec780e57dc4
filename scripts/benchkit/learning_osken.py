"""A plain learning switch on os-ken, as its tutorial has it: ``python -m benchkit.learning_osken PORT``.

It sets up no flows, so that every packet goes to the controller, as with the others.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import Any

from os_ken import cfg
from os_ken.base import app_manager  # first: the controller's module cannot be imported before it
from os_ken.controller import ofp_event, ofp_handler
from os_ken.controller.handler import MAIN_DISPATCHER, set_ev_cls
from os_ken.lib.packet import ethernet, packet
from os_ken.ofproto import ofproto_v1_3


class LearningSwitch(app_manager.OSKenApp):  # type: ignore[misc]
    OFP_VERSIONS = [ofproto_v1_3.OFP_VERSION]  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ports: defaultdict[int, dict[str, int]] = defaultdict(dict)

    @set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)  # type: ignore[untyped-decorator]
    def packet_in(self, event: Any) -> None:
        message = event.msg
        datapath = message.datapath
        ofproto, parser = datapath.ofproto, datapath.ofproto_parser
        in_port = message.match["in_port"]
        frame = packet.Packet(message.data).get_protocols(ethernet.ethernet)[0]
        ports = self._ports[datapath.id]
        ports[frame.src] = in_port
        actions = [parser.OFPActionOutput(ports.get(frame.dst, ofproto.OFPP_FLOOD))]
        out = parser.OFPPacketOut(datapath=datapath, buffer_id=message.buffer_id, in_port=in_port, actions=actions,
                                  data=message.data)  # fmt: skip
        datapath.send_msg(out)


def main(port: int) -> None:
    cfg.CONF([], project="learning", default_config_files=[])
    cfg.CONF.set_override("ofp_tcp_listen_port", port)
    cfg.CONF.set_override("ofp_listen_host", "127.0.0.1")
    manager = app_manager.AppManager.get_instance()
    manager.instantiate(ofp_handler.OFPHandler)
    manager.instantiate(LearningSwitch)
    for thread in [app.start() for app in manager.applications.values()]:
        if thread is not None:
            thread.wait()


if __name__ == "__main__":
    main(int(sys.argv[1]))
