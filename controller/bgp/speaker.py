"""BGP with all routers that the rows name: who is connected, and what each is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from controller.bgp.dial import dial
from controller.bgp.peer import Peer
from controller.bgp.routes import in_order, routes
from controller.desired import Desired
from controller.fabric import Fabric
from controller.history import EventFilter, History, rfc3339

log = logging.getLogger(__name__)

_WORDS = frozenset({"up", "down"})
_PAUSE_SECONDS = 0.2  # between two looks at the fleet: a burst of changes is told as one


class Speaker:
    """On the loop. Call ``look()`` when rows changed. ``notify`` is called when a connection comes or goes."""

    def __init__(self, desired: Desired, fabric: Fabric, history: History, notify: Callable[[], None]) -> None:
        self.peers: dict[str, Peer] = {}
        self.dialled = dial
        self._desired = desired
        self._fabric = fabric
        self._history = history
        self._notify = notify
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._told: dict[str, str] = {}  # of each peer the last event, also of a controller before this one

    def look(self) -> None:
        """The fleet may be another one now."""
        if self.peers or self._desired.bgp_peers:
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled. Routers are told nothing then: they keep the routes for the next controller."""
        for event in self._history.find(EventFilter(kind="BgpPeer")).events:
            if event.event in _WORDS:
                self._told[event.name] = event.event
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._settle()
                except Exception:
                    log.exception("routes could not be made; what was announced stays")
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _settle(self) -> None:
        wanted = self._desired.bgp_peers
        old = [peer for name, peer in self.peers.items() if wanted.get(name) != peer.spec]
        # A router that is connected with already would turn away another connection.
        await asyncio.gather(*map(self._end, old), return_exceptions=True)
        found = {uplink: routes(self._fabric, uplink) for uplink in {spec.uplink for spec in wanted.values()}}
        for name, spec in wanted.items():
            if name not in self.peers:
                self.peers[name] = Peer(name, spec, self._changed, self.dialled)
                self._tasks[name] = asyncio.create_task(self.peers[name].run(), name=f"bgp {name}")
            self.peers[name].want(found[spec.uplink])

    def _end(self, peer: Peer) -> asyncio.Task[None]:
        """The task, which ends soon."""
        then = self._desired.bgp_peers.get(peer.name)
        if then is None or (then.address, then.port) != (peer.spec.address, peer.spec.port):
            peer.part()
        if then is None:
            self._told.pop(peer.name, None)
        del self.peers[peer.name]
        task = self._tasks.pop(peer.name)
        task.cancel()
        return task

    def _changed(self, peer: Peer) -> None:
        """That it is established is told, and once that it is not."""
        word = {"established": "up", "idle": "down"}.get(peer.state)
        if word is not None and self._told.get(peer.name) != word:
            self._told[peer.name] = word
            router = f"BGP with {peer.spec.address}, AS {peer.spec.remote_as},"
            message = f"{router} is established" if word == "up" else f"{router} is not established: {peer.reason}"
            log.info("BgpPeer %s: %s", peer.name, message)
            self._history.add("BgpPeer", peer.name, word, message)
        self._notify()

    def status(self, name: str) -> dict[str, Any]:
        """What is observed of a peer, as the API shows it."""
        peer = self.peers.get(name)
        if peer is None:
            return {}
        router = peer.router
        return {
            "state": peer.state,
            "since": rfc3339(peer.since),
            "reason": peer.reason,
            "announced": len(peer.announced),
            "received": peer.received,
            "hold_time": peer.hold_time if router is not None else None,
            "restart_time": router.restart_time if router is not None else None,
            "routes": in_order(peer.announced),
        }
