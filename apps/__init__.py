"""The features. Each is one file that knows rows and the pipeline, and nothing else."""

from __future__ import annotations

from apps.classify import Classify
from apps.dhcp import Dhcp
from apps.dns import Dns
from apps.external import External
from apps.floating import Floating
from apps.forwards import Forwards
from apps.gateway import Gateway
from apps.isolation import Isolation
from apps.l2 import L2
from apps.lldp import Lldp
from apps.migration import Migration
from apps.mtu import Mtu
from apps.nat import Nat
from apps.neighbours import Neighbours
from apps.overlay import Overlay
from apps.ownership import Ownership
from apps.pools import Pools
from apps.quarantine import Quarantine
from apps.ra import Ra
from apps.reserved import Reserved
from apps.routing import Routing
from apps.spoof_guard import SpoofGuard
from controller.pipeline.app import App

# Tables of one stage stand in this order.
APPS: tuple[App, ...] = (
    Classify(), Quarantine(), SpoofGuard(), Ownership(), Isolation(), Gateway(), Dhcp(), Dns(), Ra(), Neighbours(),
    Mtu(), Routing(), Forwards(), Nat(), External(), Floating(), Pools(), L2(), Overlay(),
    Migration(), Reserved(), Lldp(),
)  # fmt: skip
