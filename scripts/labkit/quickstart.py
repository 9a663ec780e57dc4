"""The story of scripts/quickstart: two hosts, four guests, and proof of who reaches whom."""

from __future__ import annotations

import json
import shlex
import sys
import time
from dataclasses import dataclass

from .controller import PROGRAM, REPOSITORY
from .guest import Guest
from .lab import Lab
from .nic import Nic
from .run import LabError, run, say, wait_for

EXAMPLE = REPOSITORY / "docs/examples/quickstart.yaml"
NAME = "fl"
OVERLAY_MTU = 1450

GUESTS = {
    # web1 stands between the office's VLAN and the backend; db1 is on the backend only.
    "web1": ("h1", [
        Nic("lan", "office", "52:54:00:00:10:11", ("10.0.10.11/24",)),
        Nic("backend", None, "52:54:00:00:50:11", ("192.168.50.11/24", "fd50::11/64"), mtu=OVERLAY_MTU),
    ]),
    "guest1": ("h1", [Nic("lan", "guests", "52:54:00:00:20:12", ("10.0.10.12/24",))]),
    "web2": ("h2", [Nic("lan", "office", "52:54:00:00:10:12", ("10.0.10.12/24",))]),
    "db1": ("h2", [Nic("backend", None, "52:54:00:00:50:21", ("192.168.50.21/24", "fd50::21/64"), mtu=OVERLAY_MTU)]),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claim:
    """Who shall reach an address, or must not. ``mac`` is whose answer it has to be, where two have the address."""

    sender: str
    address: str
    reaches: bool
    because: str
    mac: str | None = None


CLAIMS = (
    Claim("web1", "10.0.10.12", True, "web2, VLAN 10, on the other host by the trunk", "52:54:00:00:10:12"),
    Claim("web1", "10.0.10.254", True, "the office's machine outside, VLAN 10"),
    Claim("out10", "10.0.10.11", True, "web1, from outside, VLAN 10", "52:54:00:00:10:11"),
    Claim("out20", "10.0.10.12", True, "guest1, from outside: web2's address, in VLAN 20", "52:54:00:00:20:12"),
    Claim("guest1", "10.0.10.254", True, "the guests' machine outside, VLAN 20"),
    Claim("web1", "192.168.50.21", True, "db1, by the overlay"),
    Claim("web1", "fd50::21", True, "db1, by the overlay, IPv6"),
    Claim("guest1", "10.0.10.11", False, "web1 is in VLAN 10, guest1 in VLAN 20"),
    Claim("out20", "10.0.10.11", False, "web1 is in VLAN 10"),
    Claim("web2", "192.168.50.21", False, "web2 has no vNIC on the backend"),
    Claim("out10", "192.168.50.21", False, "nothing leads from outside to the backend"),
)


def main() -> int:
    begun = time.monotonic()
    lab = Lab(NAME, hosts=2, verbose=True)
    if lab.state.dir.exists():
        say("a lab of this name is up already; it is taken away first")
        Lab(NAME).down()
    lab.up()
    try:
        return _tell(lab, begun)
    except BaseException:
        say("failed; taking the lab away")
        lab.down()
        raise


def _tell(lab: Lab, begun: float) -> int:
    guests = populate(lab)
    print(lab.controller.fleetswitch("port", "list"), end="")
    say("who reaches whom")
    wrong = _prove(lab, guests)
    if wrong:
        raise LabError(f"{wrong} of {len(CLAIMS)} did not turn out as they should")
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
    guests = {name: lab.start_guest(host, name, nics, wait=False) for name, (host, nics) in GUESTS.items()}
    for guest in guests.values():
        guest.wait_boot()
    wait_for(
        "every vNIC active", lambda: _active(lab) == sum(len(nics) for _, nics in GUESTS.values()), 15.0, every=0.1
    )
    return guests


def _active(lab: Lab) -> int:
    ports = json.loads(lab.controller.fleetswitch("port", "list", "-o", "json"))
    return sum(port["status"].get("state") == "active" for port in ports)


def _prove(lab: Lab, guests: dict[str, Guest]) -> int:
    """Ping for every claim, print each with what happened; returns how many did not hold."""
    wrong = 0
    for claim in CLAIMS:
        reached, mac = _ping(lab, guests, claim)
        holds = reached == claim.reaches and (not reached or claim.mac in {None, mac})
        wrong += not holds
        outcome = "reaches" if reached else "does not reach"
        if reached and claim.mac is not None and mac != claim.mac:
            outcome = f"reaches ({mac} answers, not {claim.mac})"
        verdict = "ok " if holds else "NO "
        print(f"  {verdict} {claim.sender:7} {outcome:15} {claim.address:15} {claim.because}")
    return wrong


def _ping(lab: Lab, guests: dict[str, Guest], claim: Claim) -> tuple[bool, str | None]:
    """Whether the address answers, and the MAC that the sender has for it."""
    tries = 3 if claim.reaches else 1
    command = f"ping -c{tries} -W1 {claim.address}; code=$?; ip neigh show {claim.address}; exit $code"
    if claim.sender in guests:
        code, text = guests[claim.sender].run(command)
    else:
        vlan = int(claim.sender.removeprefix("out"))
        done = run(["ip", "netns", "exec", lab.outside_vlan(vlan), "sh", "-c", command], check=False)
        code, text = done.returncode, done.stdout
    mac = next((line.split("lladdr ")[1].split()[0] for line in text.splitlines() if "lladdr " in line), None)
    return code == 0, mac


def _explain(lab: Lab) -> None:
    """What the switch of h2 does for db1's vNIC, in words."""
    say("why db1 is reached, in the words of its switch (fleetswitch flows h2)")
    flows = json.loads(lab.controller.fleetswitch("flows", "h2", "-o", "json"))
    own = [flow for flow in flows if flow["source"] == "Port db1-backend"]
    if not own:
        raise LabError("host h2 has no flow for db1")
    met = [flow for flow in own if flow["packets"]]
    for flow in met:
        print(f"  {flow['table']:15} {flow['packets']:>5} packets  {flow['why']}")
    print(f"  and {len(own) - len(met)} more flows of this vNIC that no packet has met yet")


def _what_next(lab: Lab, seconds: float) -> None:
    program = shlex.quote(str(PROGRAM.relative_to(REPOSITORY)))
    say(f"all of it holds, after {seconds:.0f} s. The lab stays; try:")
    print(f"""
  export FLEETSWITCH_API={lab.controller.api}
  {program} host list                         # both hosts, and what is wrong with them
  {program} port list                         # every vNIC: host, interface, OpenFlow port, network
  {program} flows h1 --table forward          # flows in words
  {program} trace web1 db1                    # a packet's way; docs/tour.md goes on from here
  scripts/lab exec web1 -- ping -c3 192.168.50.21
  scripts/lab exec h1 -- ovs-vsctl show       # on a host: ovs-vsctl, ovs-ofctl, virsh
  scripts/lab migrate web1 h2                 # move it while it runs
  scripts/lab controller kill                 # guests keep talking; `controller start` brings it back

  REST: {lab.controller.page}/api/v1/hosts   and its description at {lab.controller.page}/openapi.json
  Take it away: scripts/quickstart --down
""")


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except LabError as error:
        print(f"quickstart: {error}", file=sys.stderr)
        raise SystemExit(1) from None
