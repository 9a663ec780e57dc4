"""The routes that take and give libvirt's network XML."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import asdict, replace
from typing import Any, cast
from xml.etree.ElementTree import Element, tostring

from flask import Response
from flask.typing import ResponseReturnValue

from controller.api import endpoints as e
from controller.api.bodies import read_xml_text
from controller.api.endpoints import PREFIX, Endpoint
from controller.api.operations import Applied, HostNetwork, Operations
from controller.api.queries import Parameter, Query, read_query
from controller.errors import Conflict, InvalidInput, NotFound, Problem
from controller.model.documents import Document, load_objects
from controller.model.network import NetworkSpec, network_uuid
from topology.network_definition import NetworkDefinition, as_new, define_network, read_network_xml
from topology.network_dump import dump_network
from topology.network_schema import SchemaAnswer, check_schema
from topology.network_update import COMMANDS, SECTIONS, update_network

Call = Callable[[Coroutine[Any, Any, Any]], Any]
Change = Callable[[Query, Callable[[], Coroutine[Any, Any, Applied]], Mapping[str, Any]], ResponseReturnValue]

_XML = "application/xml"
_PHYSICAL = Parameter("physical_network", "text", "of a network of mode bridge whose XML names none: the hosts' uplink")
_DEFINE = (_PHYSICAL, e.DRY_RUN, e.WAIT)
_UPDATE = (
    Parameter("command", "text", "what to do, by virsh's word", choices=COMMANDS, required=True),
    Parameter("section", "text", "what kind of element it is, by virsh's word", choices=SECTIONS, required=True),
    e.DRY_RUN,
    e.WAIT,
)
_IMPORT = (Parameter("name", "text", "how it is called here; as there when absent"), *_DEFINE)


class DefinitionRoutes:
    """Networks as libvirt writes them. ``change`` makes a change, waits if that is asked for, and answers."""

    def __init__(self, call: Call, operations: Operations, change: Change) -> None:
        self._call = call
        self._operations = operations
        self._change = change

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", f"{PREFIX}/define", "defineNetwork", "Make the Network that libvirt's XML describes",
                     self.define, "Defined", body="NetworkXml", query=_DEFINE, statuses=(200, 202, 409, 413, 415)),
            Endpoint("GET", f"{PREFIX}/networks/<name>/xml", "dumpNetwork", "A Network as libvirt's XML", self.dump,
                     "Any", statuses=(200, 404), media=(_XML,)),
            Endpoint("POST", f"{PREFIX}/networks/<name>/update", "updateNetwork",
                     "Add, change or take away one element of a Network's XML", self.update, "Applied",
                     body="NetworkXml", query=_UPDATE, statuses=(200, 202, 404, 409, 413, 415)),
            Endpoint("POST", f"{PREFIX}/hosts/<name>/networks/<network>/import", "importNetwork",
                     "Make a Network of one that a host's libvirt has", self.take_over, "Defined", query=_IMPORT,
                     statuses=(200, 202, 404, 409, 502)),
        ]  # fmt: skip

    def define(self) -> ResponseReturnValue:
        query = read_query(_DEFINE)
        return self._define(query, read_network_xml(read_xml_text()))

    def take_over(self, name: str, network: str) -> ResponseReturnValue:
        query = read_query(_IMPORT)
        root = read_network_xml(self._call(self._operations.network_xml(name, network)))
        as_new(root, query.texts().get("name"))
        return self._define(query, root)

    def dump(self, name: str) -> ResponseReturnValue:
        read_query(())
        (document,) = load_objects([self._call(self._operations.get("Network", name))])
        return Response(dump_network(name, cast(NetworkSpec, document.spec)), content_type=f"{_XML}; charset=utf-8")

    def update(self, name: str) -> ResponseReturnValue:
        query, xml = read_query(_UPDATE), read_xml_text()
        said = query.texts()
        found = self._call(self._operations.get("Network", name))
        (document,) = load_objects([found])
        updated = update_network(name, cast(NetworkSpec, document.spec), said["command"], said["section"], xml)
        document = replace(updated, generation=found["generation"])
        return self._change(query, lambda: self._operations.apply([document], query.flag("dry_run")), {})

    def _define(self, query: Query, root: Element) -> ResponseReturnValue:
        definition, schema = checked(root, query.texts().get("physical_network"))
        document = self._beside(definition)
        uuid = network_uuid(document.name, cast(NetworkSpec, document.spec))
        clashes = self._call(self._operations.foreign_networks(document.name, uuid))
        dry_run = query.flag("dry_run")
        return self._change(query, lambda: self._operations.apply([document], dry_run), {
            "taken": [asdict(each) for each in definition.taken],
            "warnings": [asdict(each) for each in (*definition.warnings, *map(_clash, clashes))],
            "unchecked": schema.unchecked,
        })  # fmt: skip

    def _beside(self, definition: NetworkDefinition) -> Document:
        """As it is to be stored where a network of the name may be already: that one's UUID stays, as with libvirt.

        Raises Conflict where the XML says another one.
        """
        document = definition.document
        try:
            found = self._call(self._operations.get("Network", document.name))
        except NotFound:
            return replace(document, generation=0)
        uuid = found.get("status", {}).get("uuid")
        if uuid is not None and definition.uuid not in (None, uuid):
            raise Conflict(f"is there already with the UUID {uuid}, not {definition.uuid}",
                           where=f"Network {document.name}", remedy="leave uuid out, or name it otherwise")  # fmt: skip
        spec = document.spec.model_copy(update={"uuid": found.get("uuid")})
        return replace(document, spec=spec, generation=found["generation"])


def checked(root: Element, physical_network: str | None) -> tuple[NetworkDefinition, SchemaAnswer]:
    """What the XML describes, and what libvirt's schema says to it. Raises InvalidInput with all that both refuse."""
    schema = check_schema(tostring(root, encoding="unicode"))
    refused = [Problem("network", f"libvirt's schema: {schema.refusal}", "see libvirt's page formatnetwork")]
    try:
        definition = define_network(root, physical_network)
    except InvalidInput as error:  # its words name the place; the schema's come after them
        raise InvalidInput([*error.problems, *(refused if schema.refusal else ())]) from None
    if schema.refusal:
        raise InvalidInput(refused)
    return definition, schema


def _clash(found: HostNetwork) -> Problem:
    return Problem(
        f"Host {found.host}",
        f"its libvirt has a network {found.name} ({found.uuid}) of its own, so this one cannot be made there",
        f"rename one of them, or remove it there: virsh net-destroy {found.name}; virsh net-undefine {found.name}",
    )
