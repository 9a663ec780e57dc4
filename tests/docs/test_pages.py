"""What the pages tell people to type is there, what they point at is there, and every page is pointed at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import click
import pytest
from labkit.cli import _parser as lab_parser

from controller.cli import main
from controller.model.documents import load_yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PROMPT = re.compile(r"^(?:\w+)?[$#] ")
WORDS = {"KIND": "host", "SECONDS": "5"}  # what stands for a value of a certain form


def titled(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What a forge makes of headings: small letters, no punctuation, blanks as hyphens."""
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def targets(page: Path) -> Iterator[tuple[Path, str]]:
    """(file, anchor) of each link that is no address."""
    for link in LINK.findall(prose(page)):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            yield (page.parent / path).resolve() if path else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=titled)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in targets(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target} has no heading #{anchor}"


def test_from_the_readme_every_page_is_found() -> None:
    found, left = set[Path](), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page not in found and page.suffix == ".md":
            found.add(page)
            left += [target for target, _ in targets(page)]
    assert set(PAGES) - found == set()
    listed = {target for target, _ in targets(ROOT / "README.md")}
    assert set(ROOT.glob("docs/*.md")) - listed == set(), "the README lists every page of docs"
    features = {target for target, _ in targets(ROOT / "docs/features/README.md")}
    assert set(ROOT.glob("docs/features/*.md")) - features == {ROOT / "docs/features/README.md"}


def commands(text: str, program: str) -> Iterator[list[str]]:
    """The words of each command of a program, in blocks and in running text, up to a pipe or a redirection."""
    blocks = [body.replace("\\\n", " ") for language, body in FENCED.findall(text) if language in {"", "bash", "sh"}]
    lines = [PROMPT.sub("", line) for body in blocks for line in body.splitlines()]
    lines += [" ".join(span.split()) for span in SPAN.findall(FENCED.sub("", text))]
    for line in lines:
        if line.startswith(f"{program} "):
            words = shlex.split(line, comments=True)[1:]
            yield [WORDS.get(word, word) for word in takewhile(lambda word: word[0] not in "|>&", words)]


def refused(words: list[str]) -> str | None:
    """Why the command line does not take these words, without running them; None when it does."""
    command: click.Command = main
    context = click.Context(main, info_name="fleetswitch")
    while isinstance(command, click.Group):
        # a group's own options, as those of topology, end where its verb begins
        if not words or words[0].startswith("-"):
            break
        name, words = words[0], words[1:]
        found = command.get_command(context, name)
        if found is None:
            return f"no verb {name}"
        command, context = found, click.Context(found, parent=context, info_name=name)
    try:
        command.make_context(context.info_name, list(words), parent=context.parent)
    except click.exceptions.NoArgsIsHelpError:
        return None
    except click.ClickException as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=titled)
def test_every_command_that_a_page_names_is_one(page: Path) -> None:
    wrong = {" ".join(words): why for words in commands(page.read_text(), "fleetswitch") if (why := refused(words))}
    assert wrong == {}


def test_a_command_that_is_none_is_told() -> None:
    told = [
        refused(words)
        for words in commands("`fleetswitch host\nlits` and `fleetswitch port list --vn web1`", "fleetswitch")
    ]
    assert told[0] == "no verb lits"
    assert "--vn" in str(told[1])


def test_every_example_in_the_help_is_a_command() -> None:
    def examples(command: click.Command, context: click.Context) -> Iterator[str]:
        yield from re.findall(r"fleetswitch [^;\n)]+", command.epilog or "")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from examples(found, context)

    lines = list(examples(main, click.Context(main)))
    text = "".join(f"```\n{line}\n```\n" for line in lines)
    assert len(lines) > 20
    assert {" ".join(words): why for words in commands(text, "fleetswitch") if (why := refused(words))} == {}


@pytest.mark.parametrize("page", PAGES, ids=titled)
def test_every_command_of_the_lab_that_a_page_names_is_one(page: Path) -> None:
    for name in ("scripts/lab", "./scripts/lab"):
        for words in commands(page.read_text(), name):
            if len(words) > 1 or "`" + name + " " + words[0] + "`" not in page.read_text():  # a verb may be named alone
                lab_parser().parse_args(words)  # ends the test with what is wrong


def test_the_unit_starts_the_program_with_options_that_it_has() -> None:
    unit = (ROOT / "docs/fleetswitch.service").read_text()
    found = re.search(r"^ExecStart=/opt/fleetswitch/bin/fleetswitch (.*)$", unit, re.MULTILINE)
    assert found is not None
    assert refused(found[1].split()) is None


@pytest.mark.parametrize("page", PAGES, ids=titled)
def test_every_document_that_a_page_shows_is_taken(page: Path) -> None:
    for language, body in FENCED.findall(page.read_text()):
        if language == "yaml":
            assert load_yaml(body, titled(page)), body


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/examples/*.yaml")), ids=titled)
def test_every_example_is_taken(path: Path) -> None:
    assert load_yaml(path.read_text(), path.name)


def test_what_a_page_shows_of_an_example_is_in_it() -> None:
    shown = next(
        body for language, body in FENCED.findall((ROOT / "docs/getting-started.md").read_text()) if language == "yaml"
    )
    assert (ROOT / "docs/examples/first.yaml").read_text().endswith(shown)
