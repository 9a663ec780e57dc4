"""The store: everything that is wanted and everything that is observed, as rows of an OVSDB database of our own."""

from controller.store.lease import Leadership
from controller.store.mirror import Lease, Problem
from controller.store.rows import Change, MarkDeleting, NumberRequest, Put, PutStatus, Remove, Row, Write
from controller.store.server import PrivateServer
from controller.store.store import Store

__all__ = [
    "Change",
    "Leadership",
    "Lease",
    "MarkDeleting",
    "NumberRequest",
    "PrivateServer",
    "Problem",
    "Put",
    "PutStatus",
    "Remove",
    "Row",
    "Store",
    "Write",
]
