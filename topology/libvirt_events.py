"""libvirt's event loop, once in a process, and what its events are called.

libvirt-python's callbacks run in the one thread that turns libvirt's loop. They only post: a callback that blocked
would hold up the events, and the keepalive, of every host.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
from typing import Any

import libvirt

log = logging.getLogger(__name__)

LIFECYCLE, DEVICE_REMOVED, DEVICE_ADDED, DEVICE_REMOVAL_FAILED, METADATA_CHANGE = 0, 15, 19, 22, 23
"""virDomainEventID. As numbers: libvirt-python knows only the names that the libvirt had which it was built with."""
NETWORK_LIFECYCLE = 0

_DOMAIN_EVENTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("defined", ("added", "updated", "renamed", "from-snapshot")),
    ("undefined", ("removed", "renamed")),
    ("started", ("booted", "migrated", "restored", "from-snapshot", "wakeup", "recovered")),
    (
        "suspended",
        (
            "paused",
            "migrated",
            "ioerror",
            "watchdog",
            "restored",
            "from-snapshot",
            "api-error",
            "postcopy",
            "postcopy-failed",
        ),
    ),
    ("resumed", ("unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed")),
    ("stopped", ("shutdown", "destroyed", "crashed", "migrated", "saved", "failed", "from-snapshot", "recovered")),
    ("shutdown", ("finished", "guest", "host")),
    ("pmsuspended", ("memory", "disk")),
    ("crashed", ("panicked", "crashloaded")),
)
_NETWORK_EVENTS = ("defined", "undefined", "started", "stopped")
_CLOSE_REASONS = ("error", "end of stream", "keepalive timeout", "closed by this side")


def domain_event_name(event: int, detail: int) -> str:
    """``started/migrated``: virDomainEventType and its detail, as ``virsh event`` writes them; numbers when unknown."""
    name, details = _DOMAIN_EVENTS[event] if 0 <= event < len(_DOMAIN_EVENTS) else (str(event), ())
    return f"{name}/{details[detail] if 0 <= detail < len(details) else detail}"


def network_event_name(event: int) -> str:
    """virNetworkEventLifecycleType."""
    return _NETWORK_EVENTS[event] if 0 <= event < len(_NETWORK_EVENTS) else str(event)


def close_reason(reason: int) -> str:
    """virConnectCloseReason."""
    return _CLOSE_REASONS[reason] if 0 <= reason < len(_CLOSE_REASONS) else f"reason {reason}"


class LibvirtEvents:
    """The process's libvirt loop. ``start`` before the first connection is opened; a second call does nothing."""

    _lock = threading.Lock()
    _started = False

    @classmethod
    def start(cls) -> None:
        with cls._lock:
            if cls._started:
                return
            _raise_file_limit()
            libvirt.registerErrorHandler(_ignore, None)  # errors are raised as well: not to stderr too
            libvirt.virEventRegisterDefaultImpl()
            threading.Thread(target=_turn, name="libvirt events", daemon=True).start()
            cls._started = True


def _ignore(_context: Any, _error: Any) -> None:
    return None


def _turn() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.error("libvirt's event loop: %s", error)
            time.sleep(1)  # it is the only thread that hears of any host: it goes on, but never in a busy loop


def _raise_file_limit() -> None:
    """Two descriptors a connection: 400 hosts need 800, and the usual soft limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
