"""Lease: an address that a guest has by DHCP. A row of the store, so that a controller that starts again knows it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Lease(BaseModel):
    """Its row's name is ``NETWORK/ADDRESS``, which the store has once only: no address is ever given twice."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    network: str
    ip: str
    mac: str
    port: str = Field(default="", description="the Port behind which the client is")
    name: str = Field(default="", description="what the client calls itself")
    since: int = Field(default=0, description="when it got the address under this name, seconds since 1970")
    expires: int = Field(description="seconds since 1970")
    state: Literal["leased", "declined"] = "leased"

    @property
    def row(self) -> str:
        return lease_row(self.network, self.ip)


def lease_row(network: str, ip: str) -> str:
    """Name of the row of an address's lease."""
    return f"{network}/{ip}"
