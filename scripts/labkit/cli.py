"""The command line of the lab: scripts/lab VERB."""

from __future__ import annotations

import argparse
import difflib
import os
import signal
from collections.abc import Callable

from . import netns
from .lab import Lab
from .light import LightGuest
from .nic import Nic
from .populate import check_numbers, populate
from .program import INTERRUPTS, run_program
from .run import LabError, say
from .state import ROOT
from .tour import take

_EPILOG = """examples:
  scripts/lab up --hosts 3                         # hosts alone; or, with a controller and guests on a network "lab":
  scripts/lab up --hosts 2 --guests 2 --light 20
  scripts/lab status
  scripts/lab exec h1 -- ovs-vsctl show
  scripts/lab exec h1 -- virsh list
  scripts/lab exec out10 -- ping -c3 10.0.10.5
  scripts/lab exec h1-g1 -- ping -c3 10.88.2.51    # guests of up are called hN-g1 (10.88.N.1), hN-l1 (10.88.N.51)
  scripts/lab guest h1 web1 --address 10.88.0.5/16 --mtu 1450
  scripts/lab migrate web1 h2
  scripts/lab controller kill
  scripts/lab down

Run it as root. Everything that a lab makes is under /run/fleetswitch-lab/NAME, in namespaces called NAME-..., and in
one interface NAMEctl; down takes all of it away, as does a failed or interrupted up."""


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed, 2 usage, 130 interrupted; `exec` gives the command's own."""
    args = _parser().parse_args(argv)
    return run_program("lab", lambda: args.do(args))


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="scripts/lab",
        description="A fleet of KVM hosts on this machine: each a namespace with its own Open vSwitch and libvirtd.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, do: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument(
            "--name", default="fl", metavar="PREFIX", help="the lab's name, up to 4 characters (default fl)"
        )
        sub.set_defaults(do=do)
        return sub

    up = verb("up", _up, "build the lab: hosts, networks, the outside machine")
    up.add_argument("--hosts", type=int, default=2, metavar="N", help="how many hosts (default 2)")
    up.add_argument("--vlans", default="10,20", metavar="LIST", help="the outside's access VLANs (default 10,20)")
    up.add_argument("--physnets", type=int, default=1, choices=(1, 2), help="physical segments: eth2, and eth3 for 2")
    up.add_argument(
        "--underlay-mtu", type=int, default=1500, metavar="BYTES", help="MTU under the tunnels (default 1500)"
    )
    up.add_argument("--no-libvirt", action="store_true", help="leave libvirtd out")

    up.add_argument(
        "--guests",
        type=int,
        default=0,
        metavar="N",
        help="real guests a host, up to 50, on a network lab, with a controller",
    )
    up.add_argument("--light", type=int, default=0, metavar="N", help="light guests a host, up to 200, likewise")

    verb("down", _down, "take the lab away, in whatever state it is; no error when there is none")
    verb("status", _status, "hosts, daemons, addresses, guests")

    execute = verb("exec", _exec, "run a command on a host (h1), in a guest, or outside (out, out10)")
    execute.add_argument("target", help="h1, a guest's name, out, out10, net")
    execute.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")

    for kind, do, what in (("guest", _guest, "a real guest (QEMU)"), ("light", _light, "a light guest (a namespace)")):
        start = verb(kind, do, f"start {what} with one vNIC")
        start.add_argument("host", help="the host, h1")
        start.add_argument("guest", help="its name")
        start.add_argument("--network", default="lab", help="libvirt network (default lab)")
        start.add_argument("--portgroup", help="its portgroup")
        start.add_argument("--bridge", help="this OVS bridge instead of a network; light guests: default br-int")
        start.add_argument(
            "--address", action="append", default=[], metavar="ADDR/LEN", help="may be given several times"
        )
        start.add_argument("--mac", help="MAC address")
        start.add_argument("--mtu", type=int, help="MTU inside")

    stop = verb("stop", _stop, "stop a guest and forget it")
    stop.add_argument("guest", help="its name")
    controller = verb("controller", _controller, "start, stop or kill the controller that drives the hosts")
    controller.add_argument("what", choices=["start", "stop", "kill"], help="kill is kill -9")
    migrate = verb("migrate", _migrate, "move a real guest to another host while it runs")
    migrate.add_argument("guest", help="its name")
    migrate.add_argument("host", help="where to")
    tour = verb(
        "tour", _tour, "walk through docs/tour.md and docs/getting-started.md in a lab of its own: do they still hold?"
    )
    tour.add_argument("--write", action="store_true", help="write what the commands say now into the pages")
    fleet = verb("fleet-yaml", _fleet_yaml, "print the hosts as documents for fleetswitch apply")
    fleet.add_argument("--tcp", action="store_true", help="addresses on the management network, not unix sockets")
    return parser


def _up(args: argparse.Namespace) -> None:
    check_numbers(args.guests, args.light)
    try:
        vlans = [int(vlan) for vlan in args.vlans.split(",") if vlan]
    except ValueError:
        raise LabError(f"--vlans {args.vlans!r}: numbers with commas between") from None
    lab = Lab(
        args.name,
        args.hosts,
        vlans=vlans,
        physnets=args.physnets,
        underlay_mtu=args.underlay_mtu,
        libvirt=not args.no_libvirt,
        verbose=True,
    )
    with lab.whole():
        lab.up()
        if args.guests or args.light:
            populate(lab, args.guests, args.light)


def _down(args: argparse.Namespace) -> None:
    say("taken away" if Lab(args.name).down() else f"no lab {args.name!r} was up")


def _status(args: argparse.Namespace) -> None:
    if not ROOT.exists():
        raise LabError("no lab is up: scripts/lab up")
    lab = Lab.attach(args.name)
    state = lab.state.now
    underlay = f"underlay {state.underlay_net}.0/24 with MTU {state.underlay_mtu}"
    print(f"lab {lab.name}: management {state.mgmt_net}.0/24, {underlay}")
    for host in lab.hosts.values():
        daemons = " ".join(f"{name}:{'up' if alive else 'DOWN'}" for name, alive in host.daemons().items())
        print(f"{host.name:8} ovsdb tcp:{host.mgmt}:6640  tunnel {host.tunnel_ip}  {daemons}")
        print(f"{'':8} libvirt {host.libvirt_uri}")
    vlans = " ".join(f"{lab.outside_vlan(vlan)} (VLAN {vlan}, 10.0.10.254/24)" for vlan in state.vlans)
    print(f"{'outside':8} {lab.outside} (trunk)  {vlans}")
    if (controller := lab.controller).process() is not None:
        print(f"controller up; export FLEETSWITCH_API={controller.api}")
    for guest in state.guests.values():
        nics = " ".join(f"{n['mac']} {','.join(n['addresses']) or 'dhcp'}" for n in guest.vnics)
        print(f"{guest.name:8} {guest.kind} guest on {guest.host}  {nics}")


def _exec(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise LabError("exec: no command; scripts/lab exec h1 -- ovs-vsctl show")
    lab = Lab.attach(args.name)
    if args.target in lab.hosts:
        return _become(lab.hosts[args.target].argv_inside(command))
    space = f"{lab.name}-{args.target}"
    if space in lab.state.now.namespaces:
        return _become(netns.argv_in(space, command))
    code, output = lab.guest(args.target).run(command)
    print(output, end="")
    return code


def _become(argv: list[str]) -> int:
    """Replace this process, so that terminals and signals go straight to the command."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        raise LabError(f"{argv[0]}: {error.strerror}") from error


def _nic(args: argparse.Namespace, bridge: str | None) -> Nic:
    more = {"mac": args.mac} if args.mac else {}
    return Nic(args.network, args.portgroup, addresses=tuple(args.address), mtu=args.mtu, bridge=bridge, **more)


def _guest(args: argparse.Namespace) -> None:
    Lab.attach(args.name).start_guest(args.host, args.guest, [_nic(args, args.bridge)])


def _light(args: argparse.Namespace) -> None:
    Lab.attach(args.name).start_light(args.host, args.guest, [_nic(args, None)], args.bridge or "br-int")


def _stop(args: argparse.Namespace) -> None:
    guest = Lab.attach(args.name).guest(args.guest)
    guest.stop() if isinstance(guest, LightGuest) else guest.remove()


def _controller(args: argparse.Namespace) -> None:
    controller = Lab.attach(args.name).controller
    if args.what == "start":
        controller.start()
        print(f"up; export FLEETSWITCH_API={controller.api}")
    else:
        controller.stop(signal.SIGKILL if args.what == "kill" else None)
        print("ended; the hosts go on with what they have")


def _migrate(args: argparse.Namespace) -> None:
    lab = Lab.attach(args.name)
    guest = lab.guest(args.guest)
    if isinstance(guest, LightGuest):
        raise LabError(f"{guest.name} is a light guest: only real ones migrate")
    guest.migrate(lab.host(args.host).name)
    say(f"{guest.name} runs on {args.host} now")


def _tour(args: argparse.Namespace) -> int:
    with Lab(args.name, hosts=2, verbose=True) as lab:
        found = take(lab)
    stale = 0
    for page, text in found.items():
        if (written := page.read_text()) == text:
            continue
        if args.write:
            page.write_text(text)
        else:
            stale = 1
            print("".join(difflib.unified_diff(written.splitlines(True), text.splitlines(True), str(page), "now")))
    return stale


def _fleet_yaml(args: argparse.Namespace) -> None:
    print(Lab.attach(args.name).fleet_yaml(tcp=args.tcp), end="")
