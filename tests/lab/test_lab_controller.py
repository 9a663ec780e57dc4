"""What the lab tells a controller, and how it starts and ends one; a stand-in program takes the controller's place."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from labkit import Controller, Lab, LabError, Nic
from labkit import controller as module
from labkit.populate import NETWORK

from controller.model.documents import load_yaml
from controller.options import Options

pytestmark = pytest.mark.lab

# Answers GET /healthz on the socket that --api-socket names, and writes down how it was called.
STAND_IN = """#!{python}
import json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler

args = sys.argv[1:]
if args[0] != "up":
    print(json.dumps([args, os.environ["FLEETSWITCH_API"]]))
    sys.exit(3 if "fail" in args else 0)
if os.path.exists({broken!r}):
    sys.exit("cannot listen")
options = dict(zip(args[1::2], args[2::2]))
os.makedirs(options["--state-dir"], exist_ok=True)
with open(options["--state-dir"] + "/options", "w") as out:
    json.dump(options, out)

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
    def address_string(self):
        return "unix"

if os.path.exists(options["--api-socket"]):
    os.unlink(options["--api-socket"])
socketserver.UnixStreamServer(options["--api-socket"], Answer).serve_forever()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "fleetswitch"
    path.write_text(STAND_IN.format(python=sys.executable, broken=str(tmp_path / "broken")))
    path.chmod(0o755)
    monkeypatch.setattr(module, "PROGRAM", path)
    return path


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab("ti", hosts=2, physnets=2, underlay_mtu=1600) as lab:
        yield lab


def test_fleet_is_what_the_model_takes(lab: Lab) -> None:
    for tcp in (False, True):
        documents = load_yaml(lab.fleet_yaml(tcp=tcp) + NETWORK, "lab")
        assert [(d.kind, d.name) for d in documents] == [("Host", "h1"), ("Host", "h2"), ("Network", "lab")]
        spec = documents[0].spec.model_dump()
        assert spec["tunnel_ip"] == lab.hosts["h1"].tunnel_ip
        assert spec["underlay_mtu"] == 1600
        assert spec["datapath_type"] == "netdev"
        assert {name: uplink["interface"] for name, uplink in spec["uplinks"].items()} == {
            "physnet1": "eth2",
            "physnet2": "eth3",
        }
        assert spec["ovsdb"] == (f"tcp:{lab.hosts['h1'].mgmt}:6640" if tcp else lab.hosts["h1"].db)


def test_light_guests_can_be_registered(lab: Lab) -> None:
    lab.hosts["h1"].add_bridge("br-int")
    guest = lab.start_light("h1", "two", [Nic(), Nic("web", "db")])
    documents = load_yaml(guest.ports_yaml(), "lab")
    assert [d.name for d in documents] == ["two-0", "two-1"]
    for document, nic, network, portgroup in zip(documents, guest.nics, ("lab", "web"), ("default", "db"), strict=True):
        assert document.spec.model_dump() == {
            "vm": guest.vm_id, "mac": nic.mac, "network": network, "portgroup": portgroup, "addresses": (),
            "libvirt": False,
        }  # fmt: skip


def test_controller_starts_stops_and_starts_again(lab: Lab, program: Path) -> None:
    controller = lab.controller
    first = controller.start()
    with pytest.raises(LabError, match="runs already"):
        controller.start()
    page = controller.page
    controller.stop(signal.SIGKILL)
    assert not first.alive
    assert controller.process() is None
    second = Lab.attach("ti").controller.start()
    assert second != first
    assert controller.page == page
    lab.down()
    assert not second.alive


def test_options_are_those_of_the_controller(lab: Lab, program: Path) -> None:
    lab.controller.start()
    words = json.loads((lab.controller.dir / "state/options").read_text())
    options = Options(
        state_dir=Path(words["--state-dir"]),
        listen=(words["--listen"],),
        api_socket=Path(words["--api-socket"]),
        api_tcp=words["--api-tcp"],
    )
    assert options.listen == (f"tcp:{lab.state.now.mgmt_net}.254:6653",)
    assert lab.controller.api == f"unix:{options.api_socket}"


def test_controller_that_ends_at_once_says_why(lab: Lab, program: Path) -> None:
    (program.parent / "broken").touch()
    with pytest.raises(LabError, match="cannot listen"):
        lab.controller.start()


def test_command_line_gets_the_address(lab: Lab, program: Path) -> None:
    lab.controller.start()
    said = lab.controller.fleetswitch("get", "hosts")
    assert said.strip() == f'[["get", "hosts"], "{lab.controller.api}"]'
    assert '"apply", "-f"' in lab.controller.apply("kind: Host\n")
    with pytest.raises(LabError, match="exit code 3"):
        lab.controller.fleetswitch("fail")


def test_a_controller_that_was_never_started_has_no_page(lab: Lab) -> None:
    with pytest.raises(LabError, match="no controller"):
        Controller(lab.state).page  # noqa: B018
    lab.controller.stop()
    assert not lab.controller.dir.exists()
