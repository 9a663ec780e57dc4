"""A host's OVSDB and the hook beside it, and what libvirt hands to the hook (its form taken from libvirt 9.0.0)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from ovsdb_servers import Server, vswitch

from controller.ovsdb.host import HookRow, VnicRow
from controller.ovsdb.wanted import HOOK_PORT
from topology.hook import hook_script

VM = "00000000-0000-4000-8000-000000000001"
MAC = "52:54:00:00:00:01"
IFACE = "00000000-0000-4000-8000-0000000000ff"
SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]
CREATED, DELETED = ("web", "port-created", "begin", "-"), ("web", "port-deleted", "begin", "-")
START = ("web1", "start", "begin", "-")


def _text(value: str) -> str:
    """As libvirt writes it (virBufferEscapeString)."""
    return escape(value, {"'": "&apos;", '"': "&quot;"})


def interface(tap: str = "vnet0", bridge: str = "br-int", mac: str = MAC, source: str = "network='web' ") -> str:
    return f"""    <interface type='bridge'>
      <mac address='{_text(mac)}'/>
      <source {source}bridge='{_text(bridge)}'/>
      <virtualport type='openvswitch'>
        <parameters interfaceid='{IFACE}' profileid='web:default'/>
      </virtualport>
      <target dev='{_text(tap)}'/>
      <model type='virtio'/>
    </interface>
"""


def domain(*interfaces: str, more: str = "") -> str:
    return f"""<domain type='kvm' id='1'>
  <name>web1</name>
  <uuid>{VM}</uuid>
{more}  <devices>
    <disk type='file' device='disk'>
      <target dev='vda' bus='virtio'/>
    </disk>
{"".join(interfaces or (interface(),))}  </devices>
</domain>
"""


def hook_data(group: str | None = None, bridge: str = "br-int", mac: str = MAC, network: str = "web") -> str:
    told = f"    <group>{_text(group)}</group>\n" if group is not None else ""
    return f"""<hookData>
  <network connections='1'>
    <name>{_text(network)}</name>
    <uuid>00000000-0000-4000-8000-00000000000e</uuid>
    <forward mode='bridge'/>
    <bridge name='{_text(bridge)}'/>
    <virtualport type='openvswitch'/>
  </network>
  <networkport>
    <uuid>00000000-0000-4000-8000-0000000000aa</uuid>
    <owner>
      <name>web1</name>
      <uuid>{VM}</uuid>
    </owner>
{told}    <mac address='{_text(mac)}'/>
    <virtualport type='openvswitch'>
      <parameters interfaceid='{IFACE}' profileid='web:default'/>
    </virtualport>
    <plug type='bridge' bridge='{_text(bridge)}'/>
  </networkport>
</hookData>
"""


class HookHost:
    """Bridge br-int with interface vnet0 as libvirt writes it. The hook is ``patient`` unless told otherwise, so that a
    busy machine is no reason for it to give up."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        (server.folder / "db.sock").symlink_to("sock")
        ids = (f"attached-mac={MAC}", f"vm-id={VM}", f"iface-id={IFACE}", "port-profile=web:default")
        words = [word for each in ids for word in (each.partition("=")[0], each.partition("=")[2])]
        pairs = [f'external_ids:{key}="{value}"' for key, value in zip(words[::2], words[1::2], strict=True)]
        self.vsctl("add-br", "br-int", "--", "add-port", "br-int", "vnet0", "--", "set", "Interface", "vnet0", *pairs)

    def vsctl(self, *args: str) -> str:
        command = ["ovs-vsctl", "--no-wait", "--timeout=10", f"--db={self.server.remote}", *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def call(
        self, argv: tuple[str, ...], xml: str, *, shell: str = "dash", refuse: bool = False, patient: bool = True,
        path: str | None = None, script: Callable[[str], str] = lambda text: text,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """As libvirt calls it, with ``shell`` as the host's sh."""
        hook, programs = self.folder / "hook", self.folder / shell
        text = script(hook_script("br-int", refuse))
        hook.write_text(text.replace("SECONDS_AT_MOST=0.15", "SECONDS_AT_MOST=20") if patient else text)
        hook.chmod(0o755)
        programs.mkdir(exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (programs / "sh").symlink_to(shutil.which(shell) or shell)
        env = {"PATH": path or f"{programs}:{os.environ['PATH']}", "LC_ALL": "C", "OVS_RUNDIR": str(self.server.folder)}
        return subprocess.run(
            [str(programs / "sh"), str(hook), *argv], input=xml, capture_output=True, text=True, env=env, timeout=60
        )

    def mark(self) -> str:
        return self.vsctl("--if-exists", "get", "Bridge", "br-int", "external_ids:fleetswitch-hook").strip('"')

    def row(self) -> VnicRow:
        """vnet0 as the controller sees it."""
        report = self.vsctl("--if-exists", "get", "Interface", "vnet0", "external_ids:fleetswitch-xml").strip('"')
        return VnicRow("vnet0", 5, MAC, IFACE, VM, "web:default", None, report=report or None)

    def hook(self) -> HookRow:
        """What the hook wrote on the bridge, as the controller sees it."""
        text = self.vsctl("get", "Bridge", "br-int", "external_ids").strip("{}")
        pairs = (pair.partition("=") for pair in text.split(", ") if pair)
        ids = {key.strip('"'): value.strip('"') for key, _, value in pairs}
        ports = {key: value for key, value in ids.items() if key.startswith(HOOK_PORT)}
        return HookRow(ids.get("fleetswitch-hook"), ports)

    def connect(self, *published: str, connected: bool = True) -> None:
        """A controller that is connected to br-int, and has said which portgroups there are."""
        self.vsctl(
            "set-controller", "br-int", "tcp:192.0.2.9:6653", "--",
            "set", "Controller", "br-int", f"is_connected={str(connected).lower()}",
        )  # fmt: skip
        if published:
            self.vsctl("set", "Bridge", "br-int", f'external_ids:fleetswitch-networks="{" ".join(published)}"')


@contextlib.contextmanager
def hook_host(folder: Path) -> Iterator[HookHost]:
    with vswitch(folder / "ovs") as server:
        yield HookHost(folder, server)


def eventually(probe: Callable[[], object], within: float = 30.0) -> None:
    """Until the probe gives something true."""
    deadline = time.monotonic() + within
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.02)
