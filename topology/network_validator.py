"""A network's XML on standard input, held against libvirt's schema by libvirt itself: JSON of what it says.

A program of its own, which network_schema.py runs: what somebody wrote is read by libvirt's C code in a process that
may fall. libvirt's test driver keeps what it is given in this process's memory; no libvirtd is asked.
"""

from __future__ import annotations

import json
import sys

import libvirt


def main() -> None:
    libvirt.registerErrorHandler(lambda _context, _error: None, None)  # or it prints them
    connection = libvirt.open("test:///default")
    for network in connection.listAllNetworks(0):  # one of the name is there, which is no matter to anybody
        network.destroy()
        network.undefine()
    code, domain, message = 0, 0, ""
    try:
        connection.networkDefineXMLFlags(sys.stdin.buffer.read().decode(), libvirt.VIR_NETWORK_DEFINE_VALIDATE)
    except libvirt.libvirtError as error:
        code, domain, message = error.get_error_code(), error.get_error_domain(), str(error)
    print(json.dumps({"code": code, "domain": domain, "message": message}))


if __name__ == "__main__":
    main()
