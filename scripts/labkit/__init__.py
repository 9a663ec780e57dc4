"""A fleet of KVM hosts on one machine, for trying and testing: namespaces, Open vSwitch, libvirt, guests.

The standard library alone, so it runs before anything is installed; as root.
"""

from .capture import Capture, Frame, capture, send
from .controller import Controller
from .guest import Guest
from .lab import Lab
from .light import LightGuest
from .nic import Nic, random_mac
from .run import LabError, wait_for
from .stream import Report, Streaming

__all__ = [
    "Capture",
    "Controller",
    "Frame",
    "Guest",
    "Lab",
    "LabError",
    "LightGuest",
    "Nic",
    "Report",
    "Streaming",
    "capture",
    "random_mac",
    "send",
    "wait_for",
]
