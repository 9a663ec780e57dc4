"""A lab with something in it: the controller, the network `lab` on every host, and guests that hang on it."""

from __future__ import annotations

from .guest import Guest
from .lab import Lab
from .nic import Nic
from .run import LabError, say

NETWORK = """---
kind: Network
name: lab
mode: isolated
"""


def check_numbers(real: int, light: int) -> None:
    """So many guests of each kind a host. Raises LabError when it is more than a machine takes."""
    if not (0 <= real <= 50 and 0 <= light <= 200):
        raise LabError(f"{real} real and {light} light guests a host: at most 50 and 200")


def populate(lab: Lab, real: int, light: int) -> None:
    """Start the controller, apply the fleet and the network, start guests: so many of each kind a host.

    Guests of host N are called hN-g1, hN-l1 and so on, with 10.88.N.1 up (real) and 10.88.N.51 up (light), all of
    one /16.
    """
    say('controller, and a network "lab" on every host')
    lab.controller.start()
    lab.controller.apply(lab.fleet_yaml() + NETWORK)
    mtu = lab.controller.mtu("lab")
    booting: list[Guest] = []
    ports: list[str] = []
    for host in lab.hosts.values():
        subnet = f"10.88.{host.facts.number}"
        if light:
            say(f"{light} light guests on {host.name}")
            host.wait_bridge("br-int")
            nics = [Nic(addresses=(f"{subnet}.{n + 50}/16",), mtu=mtu) for n in range(1, light + 1)]
            named = [(f"{host.name}-l{n}", [nic]) for n, nic in enumerate(nics, start=1)]
            ports += [guest.ports_yaml() for guest in lab.start_lights(host.name, named)]
        if real:
            say(f"{real} real guests on {host.name}")
            host.wait_network("lab")
        for n in range(1, real + 1):
            nic = Nic(addresses=(f"{subnet}.{n}/16",), mtu=mtu)
            booting.append(lab.start_guest(host.name, f"{host.name}-g{n}", [nic], wait=False))
    if ports:
        lab.controller.apply("".join(ports))
    for guest in booting:
        guest.wait_boot()
    say(f"all guests are up; export FLEETSWITCH_API={lab.controller.api}")
