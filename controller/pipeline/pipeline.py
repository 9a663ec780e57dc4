"""The pipeline: the apps' tables in one order, and their flows checked and encoded for a switch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from controller.errors import PipelineError
from controller.openflow import messages
from controller.openflow.actions import Action as WireAction
from controller.openflow.actions import Controller, Meter, instructions, instructions_text
from controller.openflow.actions import Resubmit as WireResubmit
from controller.openflow.conntrack import Ct
from controller.openflow.decode_flow import FlowDesc, decode_instructions, decode_match
from controller.openflow.learn import Learn
from controller.openflow.oxm import FIELDS
from controller.pipeline.actions import Goto, LearnInto, Resubmit, Target, Track, goto, load, match, move
from controller.pipeline.app import App
from controller.pipeline.cookies import is_learned, own_cookie
from controller.pipeline.names import PipelineNames
from controller.pipeline.tables import Drop, Flow, Next, Priority, Table

_FLOW_MOD_MATCH = 48  # offset of the match in ofp_flow_mod (OpenFlow 1.5.1, 7.3.4.1)


@dataclass(frozen=True, slots=True)
class Entry:
    """A flow as a switch takes it. ``identity`` is (table, cookie): the cookie is a hash of all its content.

    ``slot`` is where it stands in the switch; two entries of one slot exclude each other. ``bundled`` is the whole
    flow-mod, as a bundle of any switch takes it. ``meter`` is the meter that it needs, 0 none.
    """

    identity: tuple[int, int]
    slot: tuple[int, int, bytes]
    bundled: bytes
    meter: int = 0

    @property
    def table(self) -> int:
        return self.identity[0]

    @property
    def cookie(self) -> int:
        return self.identity[1]

    @property
    def add(self) -> bytes:
        """The flow-mod alone."""
        return messages.unbundled(self.bundled)

    def described(self) -> FlowDesc:
        """The flow as a switch would describe it, from nothing but the flow-mod's bytes."""
        add = self.add
        found, at = decode_match(add, _FLOW_MOD_MATCH)
        actions, to = decode_instructions(add, at, len(add))
        return FlowDesc(self.table, self.slot[1], self.cookie, found, actions, to)


class Pipeline:
    """Numbers the tables of these apps, and turns their flows into entries.

    Raises PipelineError when it is made: two tables of one name, a miss that leads backwards, more tables than a
    switch has, a table that nothing leads to.
    """

    def __init__(self, apps: Sequence[App]) -> None:
        self.apps = tuple(apps)
        declared = list(dict.fromkeys(table for app in apps for table in app.tables))
        self.tables: tuple[Table, ...] = tuple(sorted(declared, key=lambda table: table.stage))
        self.number = {table: number for number, table in enumerate(self.tables)}
        if len({table.name for table in self.tables}) != len(self.tables):
            raise PipelineError("two tables have one name", where=", ".join(t.name for t in self.tables))
        if len(self.tables) > 250:
            raise PipelineError(f"{len(self.tables)} tables are too many")
        self.names = PipelineNames({number: table.name for table, number in self.number.items()})
        for table in self.tables:
            if not isinstance(table.miss, Drop):
                self.resolve(table, table.miss)

    def resolve(self, table: Table, target: Target) -> int:
        """Number of the table that ``target`` means in ``table``: that table, the next one, the first one of a stage.

        A stage without tables means the first table after it. Raises PipelineError for what leads back or nowhere.
        """
        number = self._number(table, target)
        if number <= self.number[table]:
            raise PipelineError(f"leads back to {self.tables[number].name}", where=table.name)
        return number

    def _number(self, table: Table, target: Target) -> int:
        if isinstance(target, Next):
            if self.number[table] + 1 == len(self.tables):
                raise PipelineError("no table comes after it", where=table.name)
            return self.number[table] + 1
        if isinstance(target, Table):
            if target not in self.number:
                raise PipelineError("no app declares this table", where=target.name)
            return self.number[target]
        for number, candidate in enumerate(self.tables):
            if candidate.stage >= target:
                return number
        raise PipelineError("no table stands at or after this stage", where=target.name)

    def misses(self) -> Iterator[Flow]:
        """The flow of each table that takes what no other flow wants; drops are flows too, so that they are counted."""
        for table in self.tables:
            actions = () if isinstance(table.miss, Drop) else (goto(table.miss),)
            why = "nothing else in this table wanted it"
            yield table.flow(Priority.MISS, match(), *actions, why=why)

    def encode(self, flow: Flow) -> Entry:
        """The flow as a switch takes it. Raises PipelineError that names the table."""
        table = self.number[flow.table]
        actions, target = self._wire(flow)
        try:
            match_bytes = flow.match.encode()
            body = instructions(actions, target)
        except PipelineError as error:
            raise PipelineError(error.what, where=f"{flow.table.name}: {error.where}") from None
        digest = blake2b(b"%d,%d;" % (table, flow.priority), digest_size=7)
        digest.update(match_bytes)
        digest.update(body)
        cookie = own_cookie(digest.digest())
        add = messages.flow_mod(table, messages.Command.ADD, cookie, 0, flow.priority, match_bytes, body)
        meter = next((action.meter_id for action in actions if isinstance(action, (Controller, Meter))), 0)
        return Entry((table, cookie), (table, flow.priority, match_bytes), messages.bundled(add, cookie), meter)

    def text(self, flow: Flow) -> str:
        """The flow as ``ovs-ofctl dump-flows`` would show it, in our names."""
        actions, target = self._wire(flow)
        condition = flow.match.text(self.names)
        head = f"table={flow.table.name}, priority={flow.priority}" + (f",{condition}" if condition else "")
        return f"{head} actions={instructions_text(actions, target, self.names)}"

    def reached(self, flows: Iterable[Flow]) -> set[Table]:
        """Tables that these flows and the misses lead to, the first one included."""
        found = {self.tables[0]}
        for flow in (*self.misses(), *flows):
            for action in flow.actions:
                if isinstance(action, (Goto, Resubmit, Track)):
                    found.add(self.tables[self.resolve(flow.table, action.target)])
        return found

    def _wire(self, flow: Flow) -> tuple[list[WireAction], int | None]:
        """Actions with numbers for names, and the table that the flow goes on to."""
        actions: list[WireAction] = []
        target: int | None = None
        for action in flow.actions:
            if target is not None:
                raise PipelineError("has an action behind its goto", where=flow.table.name)
            match action:
                case Goto():
                    target = self.resolve(flow.table, action.target)
                case Resubmit():
                    actions.append(WireResubmit(self.resolve(flow.table, action.target)))
                case Track():
                    actions.append(self._track(flow.table, action))
                case LearnInto():
                    actions.append(self._learn(flow.table, action))
                case _:
                    actions.append(action)  # type: ignore[arg-type]
        return actions, target

    def _track(self, table: Table, action: Track) -> Ct:
        nat, mark, label = action.nat, action.mark, action.label
        work = (
            *((nat,) if nat is not None else ()),
            *((move(mark, "ct_mark"),) if mark else ()),
            *((load("ct_label", label),) if label else ()),
        )
        return Ct(action.commit, action.zone, self.resolve(table, action.target), work)

    def _learn(self, table: Table, action: LearnInto) -> Learn:
        if not is_learned(action.cookie):
            raise PipelineError(f"cookie {action.cookie:#x} is not one of learned flows", where=table.name)
        result = None
        if action.result is not None:
            result = FIELDS[action.result.oxm], action.result.start
        return Learn(
            self.resolve(table, action.table), action.specs, priority=action.priority, hard_timeout=action.hard_timeout,
            cookie=action.cookie, flags=action.flags, limit=action.limit, result=result)  # fmt: skip
