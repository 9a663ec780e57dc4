"""Since when each connection of a host is degraded as it is: what was so before a change does not speak against it."""

from __future__ import annotations

from controller.agent import HostAgent, Part


class Troubles:
    """``look`` at a host whenever its state may have changed. Reasons are kept until the connection is up again, so
    that one which comes back meanwhile is not taken for a new one."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, Part], dict[str, int]] = {}

    def look(self, agent: HostAgent, sequence: int) -> None:
        """How the host stands after the change ``sequence``."""
        for part, state in agent.parts().items():
            if state.state == "degraded":
                self._since.setdefault((agent.name, part), {}).setdefault(state.reason, sequence)
            elif state.state == "up":
                self._since.pop((agent.name, part), None)

    def is_older(self, host: str, part: Part, reason: str, sequence: int) -> bool:
        """Whether the connection was degraded for this reason before the change ``sequence``."""
        since = self._since.get((host, part), {}).get(reason)
        return since is not None and since < sequence

    def forget(self, host: str) -> None:
        """What is wrong with it, counts anew."""
        for key in [key for key in self._since if key[0] == host]:
            del self._since[key]
