"""The lab's coming and going: whatever happens, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lab_traces import nothing_left, traces
from labkit import Lab, LabError, Nic, controller, state, wait_for
from labkit.host import Host
from labkit.state import ROOT

pytestmark = pytest.mark.lab

LAB = Path(__file__).parents[2] / "scripts/lab"


def namespaces(name: str) -> set[int]:
    """Inodes of the lab's network namespaces, which outlive their names as long as a process is in them."""
    return {path.stat().st_ino for path in Path("/run/netns").iterdir() if path.name.startswith(f"{name}-")}


def living_in(inodes: set[int]) -> list[str]:
    """Processes in these namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append((entry / "comm").read_text().strip())
            except OSError:
                continue
    return found


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(LAB), *args], capture_output=True, text=True, timeout=60)


def test_up_runs_every_daemon_and_down_leaves_nothing() -> None:
    with nothing_left("ta"):
        with Lab("ta", hosts=3) as lab:
            inodes = namespaces("ta")
            assert len(inodes) == 1 + 3 + 3
            for host in lab.hosts.values():
                assert host.daemons() == {"ovsdb-server": True, "ovs-vswitchd": True, "libvirtd": True}
            assert {"sleep", "libvirtd", "ovs-vswitchd", "ovsdb-server"} <= set(living_in(inodes))
        assert living_in(inodes) == []


def test_hosts_are_reached_over_tcp_from_the_root_namespace_and_differ() -> None:
    with Lab("ta", hosts=2) as lab:
        seen = set()
        for host in lab.hosts.values():
            listed = subprocess.run(
                ["ovs-vsctl", f"--db=tcp:{host.mgmt}:6640", "--timeout=5", "get", "Open_vSwitch", ".", "external_ids"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert f'system-id="{host.name}"' in listed.stdout or f"system-id={host.name}" in listed.stdout
            over_tcp = subprocess.run(
                ["virsh", "-q", "-c", host.libvirt_tcp_uri, "uri"], capture_output=True, text=True, check=True
            )
            assert over_tcp.stdout.strip() == "qemu:///system" or host.mgmt in over_tcp.stdout
            assert host.run(["ovs-vsctl", "get", "Open_vSwitch", ".", "external_ids:system-id"]).strip('"') == host.name
            assert host.virsh("hostname") == host.name
            seen.add(host.run(["virsh", "-q", "capabilities"], timeout=90).split("<uuid>")[1][:36])
        assert seen == {host.facts.uuid for host in lab.hosts.values()}
        assert " 0% packet loss" in lab.hosts["h1"].run(["ping", "-c1", "-W2", lab.hosts["h2"].tunnel_ip])


def test_failure_of_one_host_takes_all_away(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Host.start

    def broken(self: Host, daemon: str) -> object:
        if (self.name, daemon) == ("h2", "libvirtd"):
            raise LabError("h2: libvirtd does not start")
        return start(self, daemon)

    monkeypatch.setattr(Host, "start", broken)
    with nothing_left("tb"), pytest.raises(LabError, match="h2: libvirtd does not start"):
        Lab("tb", hosts=3).up()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["state.json", "h1/ovs", "h2/ovs/ovs-vswitchd.pid", "h3/keeper.pid"])
def test_interrupted_up_leaves_nothing(number: signal.Signals, moment: str) -> None:
    with nothing_left("tc"):
        up = subprocess.Popen(
            [sys.executable, str(LAB), "up", "--name", "tc", "--hosts", "3"], stderr=subprocess.PIPE, text=True
        )
        with up:
            wait_for(moment, (ROOT / "tc" / moment).exists, 20, every=0.001)
            up.send_signal(number)
            _, said = up.communicate(timeout=30)
        assert up.returncode == 130, said
        assert "taking everything away" in said


def test_second_interrupt_does_not_cut_the_teardown_short() -> None:
    with nothing_left("tc"):
        up = subprocess.Popen(
            [sys.executable, str(LAB), "up", "--name", "tc", "--hosts", "3"],
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        with up:
            wait_for("a daemon", (ROOT / "tc/h2/ovs/ovsdb-server.pid").exists, 20, every=0.001)
            os.killpg(up.pid, signal.SIGINT)  # as the terminal does: to the whole group
            assert up.stderr is not None
            while "taking everything away" not in up.stderr.readline():
                assert up.poll() is None
            os.killpg(up.pid, signal.SIGINT)
            up.communicate(timeout=30)
        assert up.returncode == 130


def test_down_works_when_processes_were_killed_and_parts_are_gone() -> None:
    with nothing_left("td"):
        lab = Lab("td", hosts=2)
        lab.up()
        inodes = namespaces("td")
        for process in lab.state.processes():
            if process.what != "h1 libvirtd":
                os.kill(process.pid, signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", "td-h2"], check=True)
        subprocess.run(["ip", "link", "del", "tdctl"], check=True)
        assert lab.down() is True
        assert lab.down() is False
        assert living_in(inodes) == []


@pytest.mark.parametrize("state_file", ["{", None])
def test_down_works_from_the_name_alone(state_file: str | None) -> None:
    with nothing_left("td"), Lab("td1", hosts=1, libvirt=False) as other:
        lab = Lab("td", hosts=2, libvirt=False)
        lab.up()
        inodes = namespaces("td")
        lab.controller.start()
        lab.state.path.write_text(state_file) if state_file else lab.state.path.unlink()
        done = cli("down", "--name", "td")
        assert (done.returncode, done.stderr) == (0, "lab: taken away\n")
        assert living_in(inodes) == []
        assert all(other.hosts["h1"].daemons().values())


def test_a_controller_whose_start_was_interrupted_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its start and the note of it, so that nothing says which process it is."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with nothing_left("td"):
        with Lab("td", hosts=1, libvirt=False) as lab, monkeypatch.context() as patched:
            patched.setattr(controller, "from_pidfile", interrupted)
            with pytest.raises(KeyboardInterrupt):
                lab.controller.start()
        assert not lab.state.dir.exists()


def test_down_ends_stopped_processes_and_strangers_in_its_namespaces() -> None:
    with nothing_left("td"):
        lab = Lab("td", hosts=1)
        lab.up()
        lab.hosts["h1"].kill("ovs-vswitchd", signal.SIGSTOP)
        with subprocess.Popen(["ip", "netns", "exec", "td-out", "sleep", "1000"]) as stranger:
            wait_for("the stranger", lambda: "sleep" in living_in({os.stat("/run/netns/td-out").st_ino}), 5)
            lab.down()
            assert stranger.wait(timeout=5) != 0


def test_down_of_a_reused_pid_kills_nobody() -> None:
    with nothing_left("td"), subprocess.Popen(["sleep", "1000"]) as other:
        lab = Lab("td", hosts=1, libvirt=False)
        lab.up()
        with lab.state.edit() as state:
            state.processes.append({"what": "h9 ovs-vswitchd", "pid": other.pid, "start": 1})
        lab.down()
        assert other.poll() is None
        other.kill()


def test_two_labs_stand_side_by_side() -> None:
    with nothing_left("te"), nothing_left("tf"), Lab("te", hosts=2) as one:
        with Lab("tf", hosts=2) as two:
            assert one.hosts["h1"].mgmt != two.hosts["h1"].mgmt
            for lab in (one, two):
                lab.hosts["h1"].add_bridge("br-int", fail_mode="standalone")
                lab.start_light("h1", "g1", [Nic(addresses=("10.0.0.1/24",))])
            assert "l-g1-0" in two.hosts["h1"].vsctl("list-ports", "br-int")
        assert traces("tf") == []
        assert all(all(host.daemons().values()) for host in one.hosts.values())
        assert one.guest("g1").run(["ping", "-c1", "10.0.0.1"])[0] == 0


def test_a_name_cannot_be_taken_twice() -> None:
    with Lab("tg", hosts=1, libvirt=False) as lab:
        with pytest.raises(LabError, match="is up already"):
            Lab("tg", hosts=1).up()
        assert all(lab.hosts["h1"].daemons().values())
        lab.hosts["h1"].add_bridge("br-int")
        lab.start_light("h1", "g1", [])
        for name in ("g1", "h1", "out", "Net", "a_b"):
            with pytest.raises(LabError, match=r"is taken|lower-case"):
                lab.start_light("h1", name, [])


def test_more_guests_than_a_machine_takes_are_refused_before_anything_is_made() -> None:
    done = cli("up", "--name", "th", "--guests", "99")
    assert (done.returncode, done.stderr) == (1, "lab: error: 99 real and 0 light guests a host: at most 50 and 200\n")


@pytest.mark.parametrize("name", ["", "Fl", "long1", "a-b", "1a", "../x"])
def test_names_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(LabError, match="one to four"):
        Lab(name)


def test_command_line() -> None:
    with nothing_left("th"):
        assert cli("status", "--name", "th").returncode == 1
        assert cli("down", "--name", "th").returncode == 0
        try:
            up = cli("up", "--name", "th", "--hosts", "1", "--physnets", "2", "--vlans", "30")
            assert up.returncode == 0, up.stderr
            status = cli("status", "--name", "th").stdout
            assert "ovs-vswitchd:up" in status
            assert "th-out30" in status
            assert "br-phy" in cli("exec", "--name", "th", "h1", "--", "ovs-vsctl", "show").stdout
            assert cli("exec", "--name", "th", "h1", "--", "sh", "-c", "exit 7").returncode == 7
            assert "10.0.10.254" in cli("exec", "--name", "th", "out30", "--", "ip", "addr").stdout
            assert "eth3" in cli("exec", "--name", "th", "h1", "--", "ip", "link").stdout
            assert cli("exec", "--name", "th", "nobody", "--", "true").returncode == 1
            made = cli("exec", "--name", "th", "h1", "--", "ovs-vsctl", "add-br", "br-int", "--",
                       "set", "Bridge", "br-int", "datapath_type=netdev")  # fmt: skip
            assert made.returncode == 0
            assert cli("light", "--name", "th", "h1", "l1", "--address", "10.5.0.1/24").returncode == 0
            assert "10.5.0.1/24" in cli("exec", "--name", "th", "l1", "--", "ip", "addr").stdout
            assert cli("stop", "--name", "th", "l1").returncode == 0
            assert "l-l1-0" not in cli("exec", "--name", "th", "h1", "--", "ovs-vsctl", "show").stdout
            yaml = cli("fleet-yaml", "--name", "th").stdout
            assert "physnet2: {interface: eth3}" in yaml
        finally:
            assert cli("down", "--name", "th").returncode == 0


def test_help_names_every_verb() -> None:
    text = cli("--help").stdout
    for verb in ("up", "down", "status", "exec", "guest", "light", "stop", "migrate", "fleet-yaml"):
        assert verb in text
        assert "usage" in cli(verb, "--help").stdout


def test_the_last_lab_leaves_while_others_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each finds the directory of all labs there while it holds its lock, although whoever is last removes it."""
    monkeypatch.setattr(state, "ROOT", tmp_path / "labs")

    def come_and_go(_: int) -> bool:
        with state.locked_root():
            return state.ROOT.is_dir()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(come_and_go, range(400)))
