"""The verb trace: where a packet goes, hop by hop and table by table, and which flow decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import click

from controller.cli.client import Client
from controller.cli.context import client, complete_name, reading
from controller.cli.output import clean, print_value

Document = Mapping[str, Any]

_COLOURS = {"delivered": "green", "answered": "green", "unknown": "yellow"}
_MOST_STEPS = 40  # a flood of a large network looks up thousands
_PORT = click.IntRange(0, 65535)
_EXAMPLES = """\b
Examples:
  fleetswitch trace web1 db1
  fleetswitch trace web1 10.0.10.12 --tcp 5432
  fleetswitch trace web1 db1 --from-address 10.0.10.99
  fleetswitch trace outside web1 --arp"""


@click.command(epilog=_EXAMPLES)
@click.argument("source", metavar="FROM", shell_complete=complete_name("Port"))
@click.argument("target", metavar="TO", shell_complete=complete_name("Port"))
@click.option("--tcp", type=_PORT, metavar="PORT", help="TCP to this port.")
@click.option("--udp", type=_PORT, metavar="PORT", help="UDP to this port.")
@click.option("--icmp", "protocol", flag_value="icmp", help="An echo request; this is the default.")
@click.option("--arp", "protocol", flag_value="arp", help="Who has TO's address; with --ipv6 a neighbour solicitation.")
@click.option("--ipv6", is_flag=True, help="IPv6, where both have IPv4 too.")
@click.option("--from-port", type=_PORT, metavar="PORT", help="From this TCP or UDP port.")
@click.option("--vlan", type=click.IntRange(0, 4094), help="With this tag, put on by FROM itself.")
@click.option("--from-address", metavar="ADDRESS", help="From another IP address than FROM's own.")
@click.option("--from-mac", metavar="MAC", help="From another MAC than FROM's own.")
@click.option("--to-mac", metavar="MAC", help="To another MAC than TO's, ff:ff:ff:ff:ff:ff for everybody.")
@click.option("--all", "every", is_flag=True, help="Every table of every copy, not only of the one that counts.")
@reading
@click.pass_context
def trace(
    ctx: click.Context,
    /,
    source: str,
    target: str,
    tcp: int | None,
    udp: int | None,
    protocol: str | None,
    every: bool,
    output: str,
    **packet: Any,
) -> None:
    """Where a packet goes, by the flows that the switches have now.

    FROM and TO are guests, Ports, MACs or addresses; outside is a machine on the physical network.
    """
    if sum(each is not None for each in (tcp, udp, protocol)) > 1:
        raise click.UsageError("one of --tcp, --udp, --icmp and --arp", ctx)
    if tcp is not None or udp is not None:
        protocol = "tcp" if tcp is not None else "udp"
        packet["port"] = tcp if tcp is not None else udp
    found = _ask(client(ctx), {"from": source, "to": target, "protocol": protocol, **packet})
    if output != "table":
        print_value(found, output)
    else:
        _print(found, every)


def _ask(at: Client, query: Mapping[str, Any]) -> Document:
    found: Document = at.get("/trace", **query)
    return found


def _print(found: Document, every: bool) -> None:
    click.echo(click.style(f"{clean(found['source'])} → {clean(found['target'])}: {clean(found['packet'])}", bold=True))
    for assumed in found["assumed"]:
        click.echo(f"  taken for granted: {clean(assumed)}")
    for hop in found["hops"]:
        click.echo(f"\n{click.style(clean(hop['host']), bold=True)}, {clean(hop['entered'])}")
        _print_steps(hop["steps"], every)
        for learned in hop["learned"]:
            click.echo(f"  learns: {clean(learned)}")
        for sent in hop["sent"]:
            click.echo(f"  goes {clean(sent)}")
        if hop["unknown"]:
            click.echo(click.style(f"  not known any further: {clean(hop['unknown'])}", fg="yellow"))
    colour = _COLOURS.get(found["outcome"], "red")
    outcome, verdict = clean(found["outcome"]), clean(found["verdict"])
    # Where the sentence says the word itself, it is not said twice.
    text = verdict if verdict.startswith(outcome) else f"{outcome}: {verdict}"
    click.echo("\n" + click.style(text, fg=colour, bold=True))


def _print_steps(steps: Sequence[Document], every: bool) -> None:
    """Those on the way that counts, all where none counts more than another; tables that only passed it on in one line.

    ``every`` shows each by itself.
    """
    shown = [step for step in steps if every or step["leads"]] or list(steps[:_MOST_STEPS])
    width = max((len(step["table"]) + 2 * step["depth"] for step in shown), default=0)
    for passed, group in groupby(shown, key=lambda step: not every and step["app"] == "pipeline" and _goes_on(step)):
        if passed:
            names = [clean(step["table"]) for step in group]
            click.echo(click.style(f"  no flow of its own in {', '.join(names)}", dim=True))
            continue
        for step in group:
            _print_step(step, width)
    if left := len(steps) - len(shown):
        click.echo(f"  and {left} more look-ups of other copies: --all shows them")


def _print_step(step: Document, width: int) -> None:
    head = ("  " * step["depth"] + clean(step["table"])).ljust(width)
    reason = ": ".join(clean(part) for part in (step["app"], step["source"], step["why"]) if part)
    if step["owner"] in {"learned", "foreign"} and not step["app"]:
        reason = f"{clean(step['owner'])}, cookie {clean(step['cookie'])}"
    click.echo(f"  {head}  {reason}")
    if step["cookie"]:
        match = f",{step['match']}" if step["match"] else ""
        text = f"priority={step['priority']}{match} actions={step['actions']}"
        click.echo(click.style(f"  {' ' * width}    {clean(text)}", dim=True))


def _goes_on(step: Document) -> bool:
    return bool(step["actions"].startswith("goto_table:"))
