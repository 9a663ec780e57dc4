"""What is found in a network's XML: what is taken, ignored and refused, each element and attribute by the table."""

from __future__ import annotations

from collections import Counter
from xml.etree.ElementTree import Element

from controller.errors import Problem
from topology.network_rules import DNSMASQ, RULES, Rule
from topology.xml_reader import shown

_TEXTS = frozenset({"dns/host/hostname"})  # what their readers look at


class Findings:
    """Of one document. ``taken`` are the values of each path of ``RULES``."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.taken: dict[str, list[str]] = {}

    def judge(self, element: Element, path: str = "", where: str = "network") -> None:
        """Everything below ``element`` by the table."""
        for name, value in element.items():
            self._attribute(f"{path}@{name}", f"{where}@{name}", value)
        if path == "metadata":
            return
        text = "".join(((element.text or ""), *((child.tail or "") for child in element))).strip()
        if path in {"name", "uuid"}:
            self.taken[path] = [shown(text)]
        elif text and path not in _TEXTS:
            self.problems.append(Problem(where, f"holds the text {shown(text)!r}", "leave it out"))
        counts: Counter[str] = Counter()
        for child in element:
            tag = child.tag.replace(f"{{{DNSMASQ}}}", "dnsmasq:")
            inner, place = f"{path}/{tag}".lstrip("/"), f"{where}/{shown(tag)}"
            counts[inner] += 1
            self._element(child, inner, f"{place} {shown(child.get('name', ''))}" if tag == "portgroup" else place,
                          counts[inner])  # fmt: skip

    def _element(self, element: Element, path: str, where: str, number: int) -> None:
        rule = RULES.get(path)
        if rule is None:
            self.problems.append(Problem(where, "is no element of libvirt's network XML", "leave it out"))
        elif rule.default and dict(element.items()) == rule.default:
            return
        elif number > 1 and not rule.many:
            self.problems.append(Problem(where, "stands there a second time", "keep one of them"))
        elif rule.verdict == "taken":
            self.judge(element, path, where)
        else:
            self._tell(rule, where, "")

    def _attribute(self, path: str, where: str, value: str) -> None:
        rule = RULES.get(path)
        if rule is None:
            self.problems.append(Problem(where, f"{shown(value)!r} is no attribute of libvirt's network XML",
                                         "leave it out"))  # fmt: skip
        elif value in rule.neutral:
            return
        elif rule.verdict == "taken":
            self.taken.setdefault(path, []).append(shown(value))
        else:
            self._tell(rule, where, value)

    def _tell(self, rule: Rule, where: str, value: str) -> None:
        what = f"{shown(value)!r}: {rule.about}" if value else rule.about
        if rule.verdict == "refused":
            self.problems.append(Problem(where, what, rule.remedy))
        else:
            self.warnings.append(Problem(where, f"{what}; ignored"))

    def refuse(self, where: str, what: str, remedy: str) -> None:
        """One more problem, at a path below ``<network>``."""
        self.problems.append(Problem(f"network/{where}".replace("/@", "@"), what, remedy))

    def warn(self, path: str, what: str) -> None:
        """Something at a path below ``<network>`` is ignored."""
        self.warnings.append(Problem(f"network/{path}".replace("/@", "@"), f"{what}; ignored"))

    def ignore(self, path: str, why: str) -> None:
        """What the table takes cannot be used here."""
        values = self.taken.pop(path, [""])
        what = f"{', '.join(values)!r}: {why}" if values[0] else why
        self.warnings.append(Problem(f"network/{path}", f"{what}; ignored"))

    def count(self, element: Element, name: str, where: str) -> int | None:
        """The attribute's number; a problem and None when it is none."""
        text = element.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= 10:
            return int(text)
        self.refuse(where, f"{shown(text)!r} is no count", "write digits")
        return None
