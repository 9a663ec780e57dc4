"""The verbs flows and explain: what a host's switch has, as ovs-ofctl dump-flows shows it, with names and reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, get_args
from urllib.parse import quote

import click

from controller.api.tracing import Owner
from controller.cli.client import Client, object_path
from controller.cli.context import client, complete_name, reading
from controller.cli.output import clean, note, print_table, print_value

Document = Mapping[str, Any]

_WIDEST = 110  # a flow that is longer pushes its own remark aside, not those of all others
_MOST_RATE = 30
_EXAMPLES = """\b
Examples:
  fleetswitch flows kvm01 --guest web1
  fleetswitch flows kvm01 --table spoof_guard --rate 2
  fleetswitch flows kvm01 --extra
  fleetswitch flows kvm01 --graph -o svg > kvm01.svg
  fleetswitch flows kvm01 --raw > flows.txt; ovs-ofctl -O OpenFlow15 add-flows br0 flows.txt"""


@click.command(epilog=_EXAMPLES)
@click.argument("host", shell_complete=complete_name("Host"))
@click.option("--table", help="Of this table.")
@click.option("--app", help="Of this app.")
@click.option("--owner", type=click.Choice(get_args(Owner)), help="Installed by.")
@click.option("--match", help="Whose match contains this text.")
@click.option("--cookie", help="With this cookie.")
@click.option("--network", help="That have to do with this network.", shell_complete=complete_name("Network"))
@click.option("--guest", help="That have to do with this guest: its name or UUID.")
@click.option("--port", help="That have to do with this vNIC: its Port, MAC or interface.",
              shell_complete=complete_name("Port"))  # fmt: skip
@click.option("--extra", is_flag=True, help="What the switch has and no row wants.")
@click.option("--missing", is_flag=True, help="What is wanted and the switch does not have.")
@click.option("--rate", type=click.FloatRange(0.1, _MOST_RATE), metavar="SECONDS",
              help="Packets and bytes a second, from two readings so far apart.")  # fmt: skip
@click.option("--watch", type=click.FloatRange(0.1, _MOST_RATE), metavar="SECONDS",
              help="As --rate, again and again, of the flows that met packets; until Ctrl-C.")  # fmt: skip
@click.option("--raw", is_flag=True, help="As ovs-ofctl -O OpenFlow15 add-flows takes them.")
@click.option("--groups", "what", flag_value="groups", help="The bridge's groups instead.")
@click.option("--meters", "what", flag_value="meters", help="The bridge's meters instead.")
@click.option("--graph", "what", flag_value="walk",
              help="The tables and how many packets each sent to which; with -o svg a picture.")  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml", "svg"]), default="table", show_default=True,
              help="The form of the output.")  # fmt: skip
@click.pass_context
def flows(
    ctx: click.Context,
    /,
    host: str,
    extra: bool,
    missing: bool,
    rate: float | None,
    watch: float | None,
    raw: bool,
    what: str | None,
    output: str,
    **filters: str | None,
) -> None:
    """The flows that a host's switch has now, with counters, and why each is there."""
    if extra and missing:
        raise click.UsageError("--extra or --missing, not both", ctx)
    if output == "svg" and what != "walk":
        raise click.UsageError("-o svg draws --graph alone", ctx)
    path = object_path("Host", host)
    if what == "walk":
        _print_walk(client(ctx), f"{path}/walk", output)
        return
    if what is not None:
        _print_others(list(client(ctx).get(f"{path}/{what}")["items"]), what, raw, output)
        return
    state = "extra" if extra else "missing" if missing else None
    while True:
        query = {**filters, "state": state, "raw": raw, "rate": watch or rate}
        found = client(ctx).get(f"{path}/flows", **query)["items"]
        if watch is not None:
            found = [flow for flow in found if flow["packet_rate"]]
            click.clear()
        _print_flows(found, raw, output)
        if output == "table" and not found and state is not None:
            note("every flow that is wanted is there" if missing else "there is no flow that no row wants")
        if watch is None:
            return


@click.command(epilog="Example: fleetswitch explain 0xf5c44b0a3d1e7720 --host kvm01")
@click.argument("cookie")
@click.option("--host", help="On this host alone.", shell_complete=complete_name("Host"))
@reading
@click.pass_context
def explain(ctx: click.Context, cookie: str, host: str | None, output: str) -> None:
    """What the flows with a cookie do, which app and which row caused them, and where they are.

    The cookie may be fleetswitch's own, a learned flow's or anybody's.
    """
    found = client(ctx).get(f"/flows/{quote(cookie, safe='')}", host=host)
    if output != "table":
        print_value(found, output)
        return
    click.echo(click.style(f"{clean(found['cookie'])}, {clean(found['owner'])}", bold=True))
    for sentence in found["meaning"]:
        click.echo(f"  {clean(sentence)}")
    for cause in found["causes"]:
        click.echo(f"\n{click.style('because of', bold=True)} {clean(cause['source'])}: {clean(cause['why'])}")
        click.echo(f"  app {clean(cause['app'])}: {clean(cause['about'])}")
        click.echo(f"  computed {clean(cause['scope'])}: {clean(', '.join(cause['hosts'])) or 'no host now'}")
    click.echo()
    columns = ("HOST", "WANTED", "INSTALLED", "FLOWS", "PACKETS", "BYTES", "NOTE")
    print_table(columns, [[place[name.lower()] for name in columns] for place in found["hosts"]])
    click.echo()
    for flow in found["flows"]:
        click.echo(clean(f"table={flow['table']}, {_text(flow)}"))
        click.echo(click.style(f"  {clean(flow['raw'])}", dim=True))


def _print_flows(found: Sequence[Document], raw: bool, output: str) -> None:
    if output != "table":
        print_value(found, output)
    elif raw:
        for flow in found:
            click.echo(clean(flow["raw"]))
    else:
        for name, group in groupby(found, key=lambda flow: flow["table"]):
            _print_table(name, list(group))


def _print_walk(at: Client, path: str, output: str) -> None:
    """Tables with the arrows that leave each, or the picture of them."""
    if output == "svg":
        click.echo(at.text(path, format="svg"), nl=False)
        return
    found = at.get(path)
    if output != "table":
        print_value(found, output)
        return
    columns = ["number", "name", "flows", "packets", "dropped", "sent"]
    rows = []
    for table in found["tables"]:
        onward = [f"{arrow['target']} {arrow['packets']}{' (looked up)' if arrow['returns'] else ''}"
                  for arrow in found["arrows"] if arrow["source"] == table["name"] and arrow["packets"]]  # fmt: skip
        rows.append([*(table[name] for name in columns), ", ".join(onward)])
    print_table([*(name.upper() for name in columns), "ONWARD"], rows)


def _print_others(found: Sequence[Document], what: str, raw: bool, output: str) -> None:
    """Groups or meters."""
    if output != "table":
        print_value(found, output)
        return
    if raw:
        for one in found:
            click.echo(clean(one["raw"]))
        return
    columns = ["group_id", "type", "users", "packets", "bytes", "buckets"]
    if what == "meters":
        columns = ["meter_id", "unit", "rates", "bursts", "users", "packets", "bytes", "dropped"]
    print_table([name.upper() for name in columns], [[one[name] for name in columns] for one in found])


def _print_table(name: str, flows: Sequence[Document]) -> None:
    click.echo(click.style(f"table={clean(name)}, {len(flows)} flow{'s' if len(flows) != 1 else ''}", bold=True))
    counters = [_counters(flow) for flow in flows]
    widths = [max(len(row[number]) for row in counters) for number in range(len(counters[0]))]
    texts = [_text(flow) for flow in flows]
    width = max((len(text) for text in texts if len(text) <= _WIDEST), default=0)
    for flow, counts, text in zip(flows, counters, texts, strict=True):
        head = " ".join(count.ljust(size) for count, size in zip(counts, widths, strict=True))
        click.echo(f" {head} {text.ljust(width)}  {click.style('# ' + _remark(flow), dim=True)}")


def _counters(flow: Document) -> tuple[str, ...]:
    counted = f"n_packets={flow['packets']},", f"n_bytes={flow['bytes']},"
    if flow.get("packet_rate") is None:
        return counted
    return *counted, f"{flow['packet_rate']:.1f}/s,", f"{flow['byte_rate']:.0f} B/s,"


def _text(flow: Document) -> str:
    match = "," + clean(flow["match"]) if flow["match"] else ""
    return f"priority={flow['priority']}{match} actions={clean(flow['actions'] or 'drop')}"


def _remark(flow: Document) -> str:
    """Who has put it there, for what, and whether it should be."""
    parts = [flow["app"], flow["source"], flow["why"]] if flow["owner"] == "fleetswitch" else [flow["owner"]]
    if flow.get("state") == "extra" and flow["owner"] == "fleetswitch":
        parts = ["left over: no row wants it any more"]
    if flow.get("state") == "missing":
        parts += ["MISSING", flow["note"]]
    return clean(": ".join(part for part in parts if part) or "fleetswitch")
