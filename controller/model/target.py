"""The guest that a port forward or a floating address leads to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, model_validator

from controller.errors import Problem
from controller.model.fields import Address, ObjectName, Spec
from controller.model.network import NetworkSpec

Family = Literal["ipv4", "ipv6"]


def family_of(address: str) -> Family:
    return "ipv6" if ":" in address else "ipv4"


class GuestTarget(Spec):
    """A guest by its name, its vNIC's, or its address."""

    vm: ObjectName | None = Field(default=None, description="the guest: its libvirt name or UUID")
    vnic: ObjectName | None = Field(default=None, description="the Port")
    address: Address | None = Field(default=None, description="whoever has this address in the network")

    @model_validator(mode="after")
    def _one_guest(self) -> GuestTarget:
        named = [what for what in ("vm", "vnic", "address") if getattr(self, what) is not None]
        if len(named) != 1:
            raise ValueError(f"names {' and '.join(named) or 'nobody'}; name one of vm, vnic and address")
        return self


def problems(
    where: str, name: str, target: GuestTarget, family: Family, networks: Mapping[str, NetworkSpec]
) -> Iterator[Problem]:
    """Why nobody in the network of that name can be the target, by an address of that family."""
    network = networks.get(name)
    if network is None or network.mode != "nat":
        what = f"there is no Network {name!r}" if network is None else f"Network {name} has mode {network.mode}"
        known = ", ".join(each for each, spec in sorted(networks.items()) if spec.mode == "nat") or "none yet"
        yield Problem(f"{where}: network", what, f"name one with mode nat; there are: {known}")
        return
    address = target.address
    gateways = [each for each in map(ipaddress.ip_interface, network.subnets) if f"ipv{each.version}" == family]
    told = ", ".join(str(each.network) for each in gateways)
    if not gateways:
        words = family.replace("ip", "IP")
        yield Problem(
            f"{where}: network", f"Network {name} has no subnet of {words}", "give it one, or take the other family"
        )
    elif address is not None and not any(ipaddress.ip_address(address) in each.network for each in gateways):
        yield Problem(f"{where}: target.address", f"{address} is not in Network {name}", f"use an address of {told}")
    elif address in {str(each.ip) for each in gateways}:
        yield Problem(f"{where}: target.address", f"{address} is the gateway's", "name a guest's address")
