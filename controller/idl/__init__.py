"""OVSDB clients: many databases, one thread, nothing that blocks.

The one place where the pitfalls of python-ovs and ovsdbapp are dealt with. ``IdlThread.connect`` gives an
``OvsdbClient``; its transactions are written with ovsdbapp's commands, or as operations of RFC 7047.
"""

import controller.idl._eventlet  # noqa: F401, I001  first: before anything imports python-ovs
from ovsdbapp.schema.open_vswitch.impl_idl import OvsdbIdl as OpenVswitchApi

from controller.model.remotes import Address, parse_remotes
from controller.idl.client import ClientState, Database, OvsdbClient
from controller.idl.dial import TlsFiles, connect_unix
from controller.idl.news import Listener, RowChange
from controller.idl.replica import Transaction
from controller.idl.session import Limits, brief
from controller.idl.thread import IdlThread

__all__ = [
    "Address",
    "ClientState",
    "Database",
    "IdlThread",
    "Limits",
    "Listener",
    "OpenVswitchApi",
    "OvsdbClient",
    "RowChange",
    "TlsFiles",
    "Transaction",
    "brief",
    "connect_unix",
    "parse_remotes",
]
