"""How numbers are written in the text of a flow: plainly, as ovs-ofctl takes them, or in the pipeline's names."""

from __future__ import annotations

from controller.openflow.oxm import Field

CONTROLLER = 0xFFFFFFFD

# Reserved ports (OpenFlow 1.5.1 §7.2.1) in ovs-ofctl's words.
PORTS = {
    0xFFFFFFF8: "IN_PORT", 0xFFFFFFF9: "TABLE", 0xFFFFFFFA: "NORMAL", 0xFFFFFFFB: "FLOOD", 0xFFFFFFFC: "ALL",
    CONTROLLER: "CONTROLLER", 0xFFFFFFFE: "LOCAL", 0xFFFFFFFF: "ANY",
}  # fmt: skip


class Names:
    """The plain names. A subclass overrides what it knows better; what it returns need not please ovs-ofctl."""

    __slots__ = ()

    def table(self, number: int) -> str:
        """A table."""
        return str(number)

    def port(self, number: int) -> str:
        """An OpenFlow port, reserved ones by name."""
        return PORTS.get(number, str(number))

    def term(self, field: Field, value: int, mask: int | None) -> list[str] | None:
        """A match term as ``name=value`` parts; ``None`` writes the field's own name."""
        return None

    def part(self, field: Field, start: int, n_bits: int) -> str:
        """Bits of a field as source or target of an action: ``reg0[0..15]``, ``eth_src[]``."""
        if n_bits == field.bits:
            return f"{field.ovs_name}[]"
        return f"{field.ovs_name}[{start}]" if n_bits == 1 else f"{field.ovs_name}[{start}..{start + n_bits - 1}]"

    def load(self, field: Field, value: int, mask: int | None) -> str | None:
        """A whole set-field action; ``None`` writes it plainly."""
        return None


PLAIN = Names()
