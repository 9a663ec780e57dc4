"""libvirt XML of the lab: a guest's domain, its interfaces, a host's network (formatdomain, formatnetwork)."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from .image import Image
from .nic import Nic

MEMORY_MIB = 96  # 72 barely boot
HOTPLUG_PORTS = 4


def console_path(name: str) -> str:
    """The console's socket as libvirtd sees it: the same on every host, so that a guest may move."""
    return f"/run/console/{name}.sock"


def command_line(name: str, nics: Sequence[Nic]) -> str:
    """The kernel's command line, read by guest-init.sh. Without no_timer_check, TCG panics on a loaded machine; the
    kernel's tests of its ciphers would make a boot a tenth longer."""
    words = ["console=ttyS0", "quiet", "no_timer_check", "cryptomgr.notests", "panic=-1", f"name={name}"]
    return " ".join([*words, *(f"nic={nic_words(nic)}" for nic in nics)])


def nic_words(nic: Nic) -> str:
    """What guest-init.sh is to do with one vNIC."""
    words = [nic.mac]
    if nic.mtu:
        words.append(f"mtu={nic.mtu}")
    words += [f"ip={address}" for address in nic.addresses]
    words += [f"gw={gateway}" for gateway in nic.gateways]
    if not nic.dhcp:
        words.append("off")
    for vlan, addresses in nic.vlans.items():
        words += [f"vlan={vlan}", *(f"ip={address}" for address in addresses)]
    return ",".join(words)


def interface(nic: Nic) -> Xml.Element:
    """`<interface>` of a vNIC; the OVS virtualport's parameters only where they are pinned."""
    element = Xml.Element("interface", type="bridge" if nic.bridge else "network")
    Xml.SubElement(element, "mac", address=nic.mac)
    if nic.bridge:
        Xml.SubElement(element, "source", bridge=nic.bridge)
    else:
        source = Xml.SubElement(element, "source", network=nic.network or "lab")
        if nic.portgroup:
            source.set("portgroup", nic.portgroup)
    parameters = {"interfaceid": nic.iface_id, "profileid": nic.profile_id}
    pinned = {key: value for key, value in parameters.items() if value}
    if nic.bridge or pinned:
        port = Xml.SubElement(element, "virtualport", type="openvswitch")
        if pinned:
            Xml.SubElement(port, "parameters", pinned)
    Xml.SubElement(element, "model", type="virtio")
    # the userspace datapath sends what it reads: no checksum may be left to the host
    Xml.SubElement(Xml.SubElement(element, "driver"), "host", csum="off")
    Xml.SubElement(element, "rom", enabled="no")  # nobody boots from it
    if nic.mtu:
        Xml.SubElement(element, "mtu", size=str(nic.mtu))
    return element


def domain(name: str, vm_id: str, nics: Sequence[Nic], image: Image) -> str:
    """`<domain>` of a guest under TCG: nothing but memory, vNICs and a serial line."""
    root = Xml.Element("domain", type="qemu")
    Xml.SubElement(root, "name").text = name
    Xml.SubElement(root, "uuid").text = vm_id
    Xml.SubElement(root, "memory", unit="MiB").text = str(MEMORY_MIB)
    Xml.SubElement(root, "vcpu").text = "1"
    system = Xml.SubElement(root, "os")
    Xml.SubElement(system, "type", arch="x86_64", machine="q35").text = "hvm"
    Xml.SubElement(system, "kernel").text = str(image.kernel)
    Xml.SubElement(system, "initrd").text = str(image.initramfs)
    Xml.SubElement(system, "cmdline").text = command_line(name, nics)
    features = Xml.SubElement(root, "features")
    Xml.SubElement(features, "acpi")
    Xml.SubElement(Xml.SubElement(features, "tcg"), "tb-cache", unit="MiB").text = "32"
    for event, action in (("on_poweroff", "destroy"), ("on_reboot", "restart"), ("on_crash", "destroy")):
        Xml.SubElement(root, event).text = action
    devices = Xml.SubElement(root, "devices")
    Xml.SubElement(devices, "emulator").text = "/usr/bin/qemu-system-x86_64"
    Xml.SubElement(devices, "controller", type="usb", model="none")
    Xml.SubElement(devices, "controller", type="pci", model="pcie-root")
    for _ in range(len(nics) + HOTPLUG_PORTS):
        Xml.SubElement(devices, "controller", type="pci", model="pcie-root-port")
    Xml.SubElement(devices, "memballoon", model="none")
    serial = Xml.SubElement(devices, "serial", type="unix")
    Xml.SubElement(serial, "source", mode="bind", path=console_path(name))
    Xml.SubElement(serial, "log", file=f"/run/console/{name}.log", append="on")
    devices.extend(interface(nic) for nic in nics)
    return Xml.tostring(root, encoding="unicode")


def network(name: str, portgroups: Sequence[str] = (), bridge: str = "br-int", default: str = "default") -> str:
    """`<network>` over an OVS bridge, whose portgroups carry the profileid NETWORK:PORTGROUP and nothing else.

    Its uuid follows from its name, so it is the same on every host.
    """
    root = Xml.Element("network")
    Xml.SubElement(root, "name").text = name
    Xml.SubElement(root, "uuid").text = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.fleetswitch-lab"))
    Xml.SubElement(root, "forward", mode="bridge")
    Xml.SubElement(root, "bridge", name=bridge)
    Xml.SubElement(root, "virtualport", type="openvswitch")
    for group in (default, *portgroups):
        element = Xml.SubElement(root, "portgroup", name=group)
        if group == default:
            element.set("default", "yes")
        port = Xml.SubElement(element, "virtualport", type="openvswitch")
        Xml.SubElement(port, "parameters", profileid=f"{name}:{group}")
    return Xml.tostring(root, encoding="unicode")
