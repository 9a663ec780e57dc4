"""The story of scripts/quickstart: two hosts, four guests, and proof of who reaches whom."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from .controller import PROGRAM, REPOSITORY
from .guest import Guest
from .lab import Lab
from .nic import Nic
from .program import run_program
from .run import LabError, run, say, wait_for

EXAMPLE = REPOSITORY / "docs/examples/quickstart.yaml"
NAME = "fl"
OVERLAY = "backend"
_TRIES = 5  # of one or two seconds each, for what has to be reached: guests have just booted, on a machine that is busy

GUESTS = {
    # web1 stands between the office's VLAN and the backend; db1 is on the backend only.
    "web1": ("h1", [
        Nic("lan", "office", "52:54:00:00:10:11", ("10.0.10.11/24",)),
        Nic(OVERLAY, None, "52:54:00:00:50:11", ("192.168.50.11/24", "fd50::11/64")),
    ]),
    "guest1": ("h1", [Nic("lan", "guests", "52:54:00:00:20:12", ("10.0.10.12/24",))]),
    "web2": ("h2", [Nic("lan", "office", "52:54:00:00:10:12", ("10.0.10.12/24",))]),
    "db1": ("h2", [Nic(OVERLAY, None, "52:54:00:00:50:21", ("192.168.50.21/24", "fd50::21/64"))]),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """Who shall reach an address, or must not.

    ``mac`` is whose answer it has to be, where two have the address. ``at`` is an address that the sender's first
    interface has, and asks from, for the time of the question ("192.168.50.99/24"): one of the other's subnet, or else
    nothing would be sent, and nobody else's, or else the answer would go there.
    """

    sender: str
    address: str
    reaches: bool
    because: str
    mac: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a claim's pings: how many went out, whether one was answered, the MAC that the sender has then; all
    that the sender's shell said."""

    sent: int
    answered: bool
    mac: str | None
    said: str = ""

    def bears_out(self, claim: Claim) -> bool:
        """Silence proves something only where somebody had asked."""
        if not claim.reaches:
            return self.sent > 0 and not self.answered
        return self.answered and claim.mac in {None, self.mac}

    def words(self, claim: Claim) -> str:
        if not self.sent:
            return "could not ask"
        if self.answered and claim.mac not in {None, self.mac}:
            return f"reaches ({self.mac} answers, not {claim.mac})"
        return "reaches" if self.answered else "does not reach"


CLAIMS = (
    Claim("web1", "10.0.10.12", True, "web2, VLAN 10, on the other host by the trunk", "52:54:00:00:10:12"),
    Claim("web1", "10.0.10.254", True, "the office's machine outside, VLAN 10"),
    Claim("out10", "10.0.10.11", True, "web1, from outside, VLAN 10", "52:54:00:00:10:11"),
    Claim("out20", "10.0.10.12", True, "guest1, from outside: web2's address, in VLAN 20", "52:54:00:00:20:12"),
    Claim("guest1", "10.0.10.254", True, "the guests' machine outside, VLAN 20"),
    Claim("web1", "192.168.50.21", True, "db1, by the overlay"),
    Claim("web1", "fd50::21", True, "db1, by the overlay, IPv6"),
    Claim("guest1", "10.0.10.11", False, "web1 is in VLAN 10, guest1 in VLAN 20", at="10.0.10.91/24"),
    Claim("out20", "10.0.10.11", False, "web1 is in VLAN 10", at="10.0.10.99/24"),
    Claim("web2", "192.168.50.21", False, "web2 has no vNIC on the backend", at="192.168.50.92/24"),
    Claim("out10", "192.168.50.21", False, "nothing leads from outside to it", at="192.168.50.99/24"),
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--name", default=NAME, metavar="PREFIX", help=f"the lab's name (default {NAME})")
    name = parser.parse_args(argv).name
    begun = time.monotonic()
    lab = Lab(name, hosts=2, verbose=True)
    if lab.state.dir.exists():
        say(f"lab {name!r} is up already; it is taken away first")
        Lab(name).down()
    with lab.whole():
        lab.up()
        return _tell(lab, begun)


def _tell(lab: Lab, begun: float) -> int:
    guests = populate(lab)
    print(lab.controller.fleetswitch("port", "list"), end="")
    say("who reaches whom")
    if wrong := _prove(lab, guests):
        raise LabError(f"{len(wrong)} of {len(CLAIMS)} did not turn out as they should: {'; '.join(wrong)}")
    _explain(lab)
    _what_next(lab, time.monotonic() - begun)
    return 0


def populate(lab: Lab) -> dict[str, Guest]:
    """On a lab that is up: start the controller, apply fleet and example, boot the guests; all are switched then.

    Guests start in their order, so that their interfaces have the same names each time; they boot side by side.
    """
    say("starting the controller")
    lab.controller.start()
    say("applying two hosts, two networks and two ports, and waiting for the switches")
    print(lab.controller.apply(lab.fleet_yaml() + "---\n" + EXAMPLE.read_text()), end="")
    say(f"booting {', '.join(GUESTS)} (QEMU without KVM)")
    mtu = lab.controller.mtu(OVERLAY)
    guests = {}
    for name, (host, nics) in GUESTS.items():
        fitting = [replace(nic, mtu=mtu) if nic.network == OVERLAY else nic for nic in nics]
        guests[name] = lab.start_guest(host, name, fitting, wait=False)
    for guest in guests.values():
        guest.wait_boot()
    wait_for(
        "every vNIC active", lambda: _active(lab) == sum(len(nics) for _, nics in GUESTS.values()), 30.0, every=0.1
    )
    return guests


def _active(lab: Lab) -> int:
    ports = json.loads(lab.controller.fleetswitch("port", "list", "-o", "json"))
    return sum(port["status"].get("state") == "active" for port in ports)


def _prove(lab: Lab, guests: dict[str, Guest]) -> list[str]:
    """Ping for every claim, print each with what happened; returns those that did not hold, in words."""
    wrong = []
    with ThreadPoolExecutor(4) as pool:
        for claim, outcome in zip(CLAIMS, pool.map(lambda claim: _ping(lab, guests, claim), CLAIMS), strict=True):
            holds = outcome.bears_out(claim)
            verdict, words = "ok " if holds else "NO ", outcome.words(claim)
            print(f"  {verdict} {claim.sender:7} {words:15} {claim.address:15} {claim.because}", flush=True)
            if not holds:
                wrong.append(f"{claim.sender} {words} {claim.address} ({outcome.said})")
    return wrong


def _ping(lab: Lab, guests: dict[str, Guest], claim: Claim) -> Outcome:
    device = "eth0" if claim.sender in guests else claim.sender.replace("out", "vlan")
    come, go = (f"ip addr {verb} {claim.at} dev {device};" if claim.at else "" for verb in ("add", "del"))
    source = f"-I {claim.at.split('/')[0]} " if claim.at else ""
    ping = f"ping -c{1 if claim.reaches else 2} -W1 {source}{claim.address}"
    if claim.reaches:  # what is first sent into a tunnel waits for ARP between the hosts, and may be lost
        ping = f"for n in $(seq {_TRIES}); do sleep $((n > 1)); {ping} && break; done"
    line = f"{come} {ping}; code=$?; ip neigh show {claim.address}; {go} exit $code"
    if claim.sender in guests:
        code, text = guests[claim.sender].run(line)
    else:
        space = lab.outside_vlan(int(claim.sender.removeprefix("out")))
        done = run(["ip", "netns", "exec", space, "sh", "-c", line], check=False)
        code, text = done.returncode, done.stdout
    sent = re.search(r"^(\d+) packets transmitted", text, re.MULTILINE)
    mac = re.search(r"lladdr (\S+)", text)
    said = " / ".join(line for line in text.splitlines() if line.strip())
    return Outcome(int(sent[1]) if sent else 0, code == 0, mac[1] if mac else None, said)


def _explain(lab: Lab) -> None:
    """What the switch of h2 does for db1's vNIC, in words; flows that say the same are one line."""
    say("why db1 is reached, in the words of its switch (fleetswitch flows h2)")
    flows = json.loads(lab.controller.fleetswitch("flows", "h2", "-o", "json"))
    own = [flow for flow in flows if flow["source"] == "Port db1-backend"]
    if not own:
        raise LabError("host h2 has no flow for db1")
    met = [flow for flow in own if flow["packets"]]
    packets: dict[tuple[str, str], int] = {}
    for flow in met:
        said = flow["table"], flow["why"]
        packets[said] = packets.get(said, 0) + flow["packets"]
    for (table, why), count in packets.items():
        print(f"  {table:15} {count:>5} packets  {why}")
    print(f"  and {len(own) - len(met)} more flows of this vNIC that no packet has met yet")


def _what_next(lab: Lab, seconds: float) -> None:
    program = shlex.quote(str(PROGRAM.relative_to(REPOSITORY)))
    named = "" if lab.name == NAME else f" --name {lab.name}"
    say(f"all of it holds, after {seconds:.0f} s. The lab stays; try:")
    print(f"""
  export FLEETSWITCH_API={lab.controller.api}
  {program} host list                    # both hosts, and what is wrong with them
  {program} port list                    # every vNIC: host, interface, OpenFlow port, network
  {program} flows h1 --table forward     # flows in words
  {program} trace web1 db1               # a packet's way; docs/tour.md goes on from here
  scripts/lab exec{named} web1 -- ping -c3 192.168.50.21
  scripts/lab exec{named} h1 -- ovs-vsctl show      # on a host: ovs-vsctl, ovs-ofctl, virsh
  scripts/lab migrate{named} web1 h2                # move it while it runs
  scripts/lab controller{named} kill                # guests keep talking; `controller start` brings it back

  REST: {lab.controller.page}/api/v1/hosts, and its description at {lab.controller.page}/openapi.json
  Take it away: scripts/quickstart{named} --down
""")


if __name__ == "__main__":
    sys.exit(run_program("quickstart", main))
