"""The pipeline: order and numbers of tables, where a flow leads, and what is refused when it is made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from apps import APPS
from controller.errors import PipelineError
from controller.openflow.actions import OutputReg
from controller.openflow.oxm import FIELDS
from controller.pipeline.actions import (
    LearnInto,
    goto,
    learned_load,
    learned_match,
    load,
    match,
    move,
    output,
    resubmit,
)
from controller.pipeline.app import App, BlockId, Scope
from controller.pipeline.cookies import is_learned, is_own, learned_cookie
from controller.pipeline.fields import ISOLATED, OUT, REGISTER_FIELDS, SEGMENT, TUNNEL_KEY_BITS
from controller.pipeline.names import PipelineNames
from controller.pipeline.pipeline import Pipeline
from controller.pipeline.ports import MAX_UPLINK, TUNNEL_PORTS, UPLINK_FIRST, uplink_port
from controller.pipeline.tables import CLASSIFY, DELIVER, DROP, FORWARD, NEXT, Flow, Stage, Table
from controller.reader import Reader

FIRST = Table("first", Stage.CLASSIFY, NEXT, "")
SECOND = Table("second", Stage.CLASSIFY, Stage.ROUTE, "")
MIDDLE = Table("middle", Stage.SERVICES, DROP, "")
LAST = Table("last", Stage.DELIVER, DROP, "")


def app(*declared: Table) -> App:
    made = App()
    made.tables = declared
    return made


def pipeline() -> Pipeline:
    return Pipeline([app(LAST, FIRST), app(MIDDLE, SECOND, FIRST)])


def numbers(made: Pipeline) -> dict[str, int]:
    return {table.name: number for table, number in made.number.items()}


def test_tables_stand_by_stage_and_within_it_as_declared() -> None:
    assert numbers(pipeline()) == {"first": 0, "second": 1, "middle": 2, "last": 3}


def test_a_table_of_several_apps_is_one() -> None:
    assert len(Pipeline([app(FIRST, LAST), app(FIRST, LAST)]).tables) == 2


@pytest.mark.parametrize(
    ("source", "target", "name"),
    [
        (FIRST, NEXT, "second"),
        (FIRST, SECOND, "second"),
        (FIRST, Stage.SERVICES, "middle"),
        (FIRST, Stage.SPOOF_GUARD, "middle"),
        (FIRST, Stage.FORWARD, "last"),
        (SECOND, Stage.DELIVER, "last"),
    ],
)
def test_where_a_flow_leads(source: Table, target: Table | Stage, name: str) -> None:
    made = pipeline()
    assert made.tables[made.resolve(source, target)].name == name


@pytest.mark.parametrize(
    ("source", "target", "what"),
    [
        (MIDDLE, FIRST, "leads back to first"),
        (MIDDLE, MIDDLE, "leads back to middle"),
        (MIDDLE, Stage.CLASSIFY, "leads back to first"),
        (SECOND, Stage.CLASSIFY, "leads back to first"),
        (LAST, NEXT, "no table comes after it"),
        (FIRST, Table("elsewhere", Stage.ROUTE, DROP, ""), "no app declares this table"),
    ],
)
def test_what_leads_nowhere(source: Table, target: Table | Stage, what: str) -> None:
    with pytest.raises(PipelineError, match=what):
        pipeline().resolve(source, target)


def test_a_stage_behind_the_last_table() -> None:
    with pytest.raises(PipelineError, match="no table stands at or after this stage"):
        Pipeline([app(FIRST, MIDDLE)]).resolve(MIDDLE, Stage.DELIVER)


@pytest.mark.parametrize(
    ("tables", "what"),
    [
        ([FIRST, Table("first", Stage.ROUTE, DROP, ""), LAST], "two tables have one name"),
        ([Table("back", Stage.ROUTE, FIRST, ""), FIRST, LAST], "leads back to first"),
        ([FIRST], "no table comes after it"),
        ([Table(f"t{n}", Stage.ROUTE, DROP, "") for n in range(251)], "251 tables are too many"),
    ],
)
def test_pipelines_that_are_refused(tables: list[Table], what: str) -> None:
    with pytest.raises(PipelineError, match=what):
        Pipeline([app(*tables)])


def test_misses_are_flows_of_lowest_priority() -> None:
    made = pipeline()
    assert [made.text(flow) for flow in made.misses()] == [
        "table=first, priority=0 actions=goto_table:second",
        "table=second, priority=0 actions=goto_table:last",
        "table=middle, priority=0 actions=drop",
        "table=last, priority=0 actions=drop",
    ]


def flow(*actions: object, table: Table = FIRST) -> Flow:
    return Flow(table, 100, match(in_port=1), actions, "test")


def test_an_action_behind_a_goto_is_refused() -> None:
    with pytest.raises(PipelineError, match="has an action behind its goto"):
        pipeline().encode(flow(goto(LAST), output(1)))


def test_a_learned_flow_must_have_a_learned_cookie() -> None:
    specs = (learned_match(SEGMENT), learned_load(OUT, "in_port"))
    with pytest.raises(PipelineError, match="is not one of learned flows"):
        pipeline().encode(flow(LearnInto(MIDDLE, 100, 300, 0xF500000000000001, specs)))
    with pytest.raises(PipelineError, match="leads back"):
        pipeline().encode(flow(LearnInto(FIRST, 100, 300, learned_cookie(1), specs), table=MIDDLE))


def test_too_many_actions_are_refused_by_table() -> None:
    with pytest.raises(PipelineError, match="do not fit into one flow") as caught:
        pipeline().encode(flow(*[output(n) for n in range(5000)]))
    assert "first" in caught.value.where


def test_the_cookie_is_the_content() -> None:
    made = pipeline()
    one, same = made.encode(flow(output(1))), made.encode(flow(output(1)))
    assert one == same
    assert is_own(one.cookie)
    others = [
        made.encode(flow(output(2))), made.encode(flow(output(1), table=SECOND)), made.encode(flow(goto(LAST))),
        made.encode(Flow(FIRST, 101, match(in_port=1), (output(1),), "test")),
        made.encode(Flow(FIRST, 100, match(in_port=2), (output(1),), "test")),
    ]  # fmt: skip
    assert len({entry.cookie for entry in (one, *others)}) == 6
    assert others[0].slot == one.slot
    assert all(entry.slot != one.slot for entry in others[3:])
    assert made.encode(Flow(FIRST, 100, match(in_port=1), (output(1),), "another reason")) == one


def test_cookies_tell_whose_a_flow_is() -> None:
    for segment in (0, 1, SEGMENT.mask):
        assert is_learned(learned_cookie(segment))
        assert not is_own(learned_cookie(segment))
    assert not is_own(0)
    assert not is_learned(0)
    assert not is_own(1 << 63)


def test_register_fields_do_not_overlap() -> None:
    taken: dict[int, int] = {}
    wide = [field for field in REGISTER_FIELDS.values() if field.width == 128]
    for field in wide:
        assert (field.start, field.register % 4) == (0, 0)  # ovs-fields(7): xxreg0 is reg0 to reg3, and so on
        taken |= dict.fromkeys(range(field.register, field.register + 4), 2**32 - 1)
    for field in (field for field in REGISTER_FIELDS.values() if field not in wide):
        assert field.start + field.width <= 32
        assert not taken.get(field.register, 0) & field.mask, field.name
        taken[field.register] = taken.get(field.register, 0) | field.mask


def test_the_isolation_bit_stands_on_top_of_the_segment_in_a_tunnel_key() -> None:
    assert ISOLATED.register == SEGMENT.register
    assert (SEGMENT.start, ISOLATED.start) == (0, SEGMENT.width)
    assert TUNNEL_KEY_BITS == 24  # vxlan and geneve carry no more


def test_matches_on_one_register_are_joined() -> None:
    assert match(segment=5, isolated=1).text() == "reg0=0x800005/0xffffff"
    assert match(segment=5).text() == "reg0=0x5/0x7fffff"


@pytest.mark.parametrize(("field", "value"), [("segment", 1 << 23), ("isolated", 2), ("out", -1), ("peer", "kvm1")])
def test_a_value_that_does_not_fit_its_register_field(field: str, value: object) -> None:
    with pytest.raises(PipelineError, match="does not fit") as caught:
        match(**{field: value})  # type: ignore[arg-type]
    assert field in caught.value.where
    with pytest.raises(PipelineError, match="does not fit"):
        load(REGISTER_FIELDS[field], value)  # type: ignore[arg-type]


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(PipelineError, match="no such match field") as caught:
        match(segmnt=5)
    assert "segmnt" in caught.value.where


def test_ports_that_are_the_same_on_every_host_exclude_each_other() -> None:
    uplinks = {uplink_port(number) for number in range(1, MAX_UPLINK + 1)}
    assert len(uplinks) == MAX_UPLINK
    assert min(uplinks) == UPLINK_FIRST
    assert not uplinks & set(TUNNEL_PORTS.values())
    assert max(uplinks | set(TUNNEL_PORTS.values())) < 0xFF00


def test_text_form_in_our_words() -> None:
    made = Pipeline(APPS)
    shown = FORWARD.flow(100, match(segment=5, eth_dst="52:54:00:00:00:01"), load(OUT, 7), goto(NEXT), why="")
    assert made.text(shown) == (
        "table=forward, priority=100,segment=5,dl_dst=52:54:00:00:00:01 actions=set_field:7->out,goto_table:learned"
    )
    moved = CLASSIFY.flow(1, match(), move("tunnel_id", SEGMENT, TUNNEL_KEY_BITS), resubmit(DELIVER), why="")
    assert made.text(moved) == (
        "table=classify, priority=1 actions=move:tun_id[0..23]->segment+isolated,resubmit(,deliver)"
    )


def test_names_of_ports_tables_and_half_registers() -> None:
    names = PipelineNames({3: "forward"}, {7: "vnet0"})
    assert names.table(3) == "forward"
    assert names.table(9) == "9"
    assert names.load(FIELDS["reg2"], 7, 0xFFFF) == "set_field:vnet0->out"
    assert names.load(FIELDS["reg2"], 0, 0xFFFF) == "set_field:0->out"
    assert names.load(FIELDS["reg2"], 7, 0xFF) is None
    assert names.term(FIELDS["reg0"], 0x01000005, 0x017FFFFF) == ["segment=5", "reg0=0x1000000/0x1000000"]
    assert names.term(FIELDS["reg9"], 5, None) is None
    assert OutputReg(FIELDS["reg2"], 0, 16).text(names) == "output:out"
    assert OutputReg(FIELDS["reg2"], 0, 8).text(names) == "output:reg2[0..7]"


class Unreached(App):
    tables = (FIRST, SECOND, MIDDLE, LAST)

    def fleet(self, fabric: Reader) -> Iterator[Flow]:
        yield FIRST.flow(1, match(), resubmit(LAST), why="")


def test_which_tables_are_reached() -> None:
    made = Pipeline([Unreached()])
    assert made.reached([]) == {FIRST, SECOND, LAST}
    assert made.reached([SECOND.flow(1, match(), goto(MIDDLE), why="")]) == {FIRST, SECOND, MIDDLE, LAST}


@pytest.mark.parametrize(
    ("scope", "objects", "row"),
    [
        (Scope.FLEET, (), "every host"),
        (Scope.NETWORK, ("web",), "Network web"),
        (Scope.PORT, ("a",), "Port a"),
        (Scope.LOCAL, ("a",), "Port a"),
        (Scope.HOST, ("kvm1",), "Host kvm1"),
        (Scope.MEMBER, ("web", "kvm1"), "Network web on Host kvm1"),
        (Scope.PEER, ("kvm1",), "Host kvm1"),
    ],
)
def test_the_row_that_caused_a_block(scope: Scope, objects: tuple[str, ...], row: str) -> None:
    assert BlockId("l2", scope, objects).row == row
