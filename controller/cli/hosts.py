"""The verbs host add and host remove: a Host from options, and what to type on the machine itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import click

from controller.cli.changes import report
from controller.cli.client import changed_places, object_path
from controller.cli.context import changing, client, complete_name
from controller.cli.files import as_object, title
from controller.cli.output import clean, note
from controller.errors import Conflict, InvalidInput, Problem
from controller.model.documents import Document, load_objects
from controller.model.host import HostSpec, TunnelType

_SOURCE = "options"
_PARTS = ("ovsdb", "libvirt", "tunnel_ip", "tunnel", "underlay_mtu", "bridge", "datapath_type")
_LIBVIRT_SOCKETS = {"qemu+tcp": "libvirtd-tcp.socket", "qemu+tls": "libvirtd-tls.socket"}


def _to_uplinks(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Callback of --uplink."""
    found: dict[str, Any] = {}
    for value in values:
        physical, equals, interface = value.partition("=")
        if not (physical and equals and interface):
            raise click.BadParameter(f"{value!r} is no uplink; write PHYSICAL_NETWORK=INTERFACE, as physnet1=ens224")
        if physical in found:
            raise click.BadParameter(f"{physical!r} is given twice; a host has one uplink to each physical network")
        found[physical] = {"interface": interface}
    return found


@click.command("add", epilog="Example: fleetswitch host add kvm01 --ovsdb tcp:192.0.2.11:6640 "
               "--tunnel-ip 192.0.2.11 --uplink physnet1=ens224")  # fmt: skip
@click.argument("name", metavar="HOST")
@click.option("--ovsdb", required=True, metavar="REMOTE", help="Where its ovsdb-server will listen: tcp:ADDRESS:6640, "
              "ssl:ADDRESS:6640 or unix:/PATH.")  # fmt: skip
@click.option("--libvirt", metavar="URI", help="Its libvirtd: qemu+tls://HOST/system and the like.")
@click.option("--tunnel-ip", metavar="ADDRESS", help="Its address on the underlay; needed for overlays.")
@click.option("--tunnel", type=click.Choice(get_args(TunnelType)), help="In which others reach it; geneve when absent.")
@click.option("--underlay-mtu", type=int, metavar="BYTES", help="The MTU between tunnel addresses; 1500 when absent.")
@click.option("--uplink", "uplinks", multiple=True, callback=_to_uplinks, metavar="PHYSNET=INTERFACE",
              help="The interface that leads to a physical network; may be repeated.")  # fmt: skip
@click.option("--bridge", metavar="NAME", help="The integration bridge; br-int when absent.")
@click.option("--datapath-type", type=click.Choice(["system", "netdev"]), help="netdev is DPDK; system when absent.")
@changing(wait=0.0)
@click.pass_context
def host_add(
    ctx: click.Context, /, name: str, uplinks: dict[str, Any], wait: float, dry_run: bool, **options: Any
) -> None:
    """Take a host into the fleet, and show what to type on it.

    A host that is there already is not changed: edit what `fleetswitch get host HOST -o yaml` shows, and apply it.
    """
    document = _document(name, uplinks, options)
    try:
        answer = client(ctx).post("/apply", [as_object(document)], dry_run=dry_run)
    except Conflict:
        raise Conflict("is in the fleet already", where=f"Host {name}", remedy=f"to change it: fleetswitch get host "
                       f"{name} -o yaml, and apply -f") from None  # fmt: skip
    except InvalidInput as error:
        raise changed_places(error, [(title(document), _SOURCE)]) from None
    spec = document.spec
    report(answer, dry_run, hint=False)
    if isinstance(spec, HostSpec):
        click.echo(f"on {clean(name)}, as root:")
        for line in commands(spec):
            click.echo(f"  {clean(line)}")
    if wait and not dry_run:
        report({**client(ctx).get("/wait", sequence=answer["sequence"], wait=wait), "outcomes": []}, dry_run=False)


@click.command("remove", epilog="Example: fleetswitch host remove kvm01 --dry-run")
@click.argument("name", metavar="HOST", shell_complete=complete_name("Host"))
@click.option("--force", is_flag=True, help="Even while guests run there, and where it cannot be reached.")
@changing()
@click.pass_context
def host_remove(ctx: click.Context, name: str, force: bool, wait: float, dry_run: bool) -> None:
    """Take a host out of the fleet: what fleetswitch made there is taken away, then its row goes."""
    answer = client(ctx).delete(object_path("Host", name), force=force, wait=wait or None, dry_run=dry_run)
    report(answer, dry_run)
    if not dry_run:
        note(f"on {name}, when nothing else uses it: ovs-vsctl del-manager")


def commands(spec: HostSpec) -> Iterator[str]:
    """What the operator types on a host, so that the controller can connect to it."""
    from controller.model.remotes import parse_remotes  # the command line starts fast without the room around it

    remote = parse_remotes(spec.ovsdb)[0]
    if remote.method == "unix":
        yield f"ovs-vsctl set-manager punix:{remote.path}"
    else:
        if remote.method == "ssl":
            yield "ovs-vsctl set-ssl KEY CERTIFICATE CA   # with the host's name in the certificate"
        host = f"[{remote.host}]" if ":" in remote.host else remote.host
        yield f"ovs-vsctl set-manager p{remote.method}:{remote.port}:{host}"
    socket = _LIBVIRT_SOCKETS.get((spec.libvirt or "").partition(":")[0])
    if socket is not None:
        yield f"systemctl enable --now {socket}"
    for physical, uplink in spec.uplinks.items():
        yield f"ip link show {uplink.interface}   # the way to {physical}: it must have no address of the host"


def _document(name: str, uplinks: dict[str, Any], options: dict[str, Any]) -> Document:
    """The Host that the options describe, by the model that everything goes through. Raises InvalidInput."""
    given = {part: options[part] for part in _PARTS if options[part] is not None}
    value = {"kind": "Host", "name": name, **given, **({"uplinks": uplinks} if uplinks else {}), "generation": 0}
    try:
        return load_objects([value], _SOURCE)[0]
    except InvalidInput as error:
        raise InvalidInput([_as_option(problem) for problem in error.problems]) from None


def _as_option(problem: Problem) -> Problem:
    """The problem at the option where it stands."""
    for part in (*_PARTS, "uplinks"):
        head, found, tail = problem.where.rpartition(f": {part}")
        if found:
            option = part.removesuffix("s").replace("_", "-")
            return Problem(f"{head.removeprefix(_SOURCE + ': ')}: --{option}{tail}", problem.what, problem.remedy)
    return Problem(problem.where.removeprefix(f"{_SOURCE}: "), problem.what, problem.remedy)
