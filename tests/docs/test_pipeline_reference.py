"""The pages that are made from the code say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from apps.__main__ import page
from controller.cli.page import page as commands_page
from topology.graph.__main__ import page as topology_page
from topology.graph.example import example
from topology.graph.picture.svg import write_svg
from topology.network_rules import page as network_xml_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_pipeline_reference_is_what_the_code_makes() -> None:
    written = (DOCS / "pipeline-reference.md").read_text()
    assert written == page(), "run: python -m apps > docs/pipeline-reference.md"


def test_the_commands_are_those_that_there_are() -> None:
    written = (DOCS / "commands.md").read_text()
    assert written == commands_page(), "run: python -m controller.cli.page > docs/commands.md"
    examples = re.findall("```\n(.+?)\n```", written, re.DOTALL)
    assert len(examples) > 20
    assert all("fleetswitch" in example for example in examples)


def test_the_topology_reference_is_what_the_code_makes() -> None:
    written = (DOCS / "topology-reference.md").read_text()
    assert written == topology_page(), "run: python -m topology.graph > docs/topology-reference.md"


def test_the_reference_of_network_xml_is_what_the_code_makes() -> None:
    written = (DOCS / "network-xml-reference.md").read_text()
    assert written == network_xml_page(), "run: python -m topology.network_rules > docs/network-xml-reference.md"


def test_the_picture_of_the_topology_is_what_the_code_draws() -> None:
    drawn = "".join(write_svg(example()))
    assert (DOCS / "topology.svg").read_text() == drawn, "run: python -m topology.graph picture > docs/topology.svg"
