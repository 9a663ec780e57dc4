"""What a real guest boots: Debian's cloud kernel, never installed, and an initramfs of busybox and our init."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .run import LabError, run, run_shown, say
from .state import locked

CACHE = Path("/var/cache/fleetswitch-lab")
_KEPT = 7 * 86400.0  # seconds that one is kept which nobody asks for: guests of another checkout may boot from it
BUSYBOX = Path("/bin/busybox")
# Order matters: a module's own dependencies come before it, and virtio's transport before its network driver.
_MODULES = ("virtio_pci", "virtio_net", "8021q", "evdev", "button")


@dataclass(frozen=True, slots=True)
class Image:
    """Paths of a kernel and an initramfs."""

    kernel: Path
    initramfs: Path


def ready() -> Image:
    """The image, from the cache or built now. Raises LabError when apt or busybox-static is missing."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE):
        tree = _kernel_tree()
        kernel = next(tree.glob("boot/vmlinuz-*"))
        files = dict(_files(tree))
        name = hashlib.sha256(b"".join(p.encode() + b"\0" + data for p, (_, data) in sorted(files.items()))).hexdigest()
        initramfs = CACHE / f"initramfs-{name[:16]}"
        if not initramfs.exists():
            say("making an initramfs for guests (once)")
            for old in CACHE.glob("initramfs-*"):
                if old.stat().st_mtime < time.time() - _KEPT:
                    old.unlink()
            new = CACHE / "new-initramfs"
            new.write_bytes(_cpio(files))
            new.rename(initramfs)
        initramfs.touch()
    return Image(kernel, initramfs)


def _kernel_tree() -> Path:
    """The unpacked kernel package; fetched with apt when it is not in the cache."""
    tree = CACHE / "kernel"
    if tree.is_dir():
        return tree
    package = _kernel_package()
    say(f"fetching a kernel for guests: {package} (27 MB, once)")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as folder:
        unsandboxed = ["-o", "APT::Sandbox::User=root"]
        run_shown(["sh", "-c", 'cd "$0" && exec apt-get "$@"', folder, *unsandboxed, "download", package], 600.0)
        say(f"unpacking it into {CACHE}")
        run(["dpkg", "-x", str(next(Path(folder).glob("*.deb"))), f"{folder}/tree"], timeout=120.0)
        (Path(folder) / "tree").chmod(0o755)
        shutil.move(f"{folder}/tree", tree)
    return tree


def _kernel_package() -> str:
    """The package that linux-image-cloud-amd64 stands for today."""
    for attempt in range(2):
        listed = run(["apt-cache", "depends", "--no-recommends", "linux-image-cloud-amd64"], check=False).stdout
        if found := re.search(r"Depends: (linux-image-\S+)", listed):
            return found[1]
        if attempt == 0:
            say("reading Debian's package lists (apt-get update)")
            run_shown(["apt-get", "update"], 300.0)
    raise LabError("apt knows no linux-image-cloud-amd64: are Debian's package lists there?")


def _files(tree: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Path in the initramfs to (mode, content); a symbolic link's content is its target."""
    if not BUSYBOX.exists():
        raise LabError("busybox is missing: apt-get install busybox-static")
    for folder in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "modules"):
        yield folder, (0o040755, b"")
    yield "bin/busybox", (0o100755, BUSYBOX.read_bytes())
    for applet in run([str(BUSYBOX), "--list"]).stdout.split():
        if applet not in ("busybox", "init"):
            yield f"bin/{applet}", (0o120777, b"busybox")
    here = Path(__file__).parent
    yield "init", (0o100755, (here / "guest-init.sh").read_bytes())
    yield "bin/dhcp-event", (0o100755, (here / "guest-dhcp.sh").read_bytes())
    found = {path.stem: path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}
    order = _load_order(found)
    yield "modules/order", (0o100644, "".join(f"{name}\n" for name in order).encode())
    for name in order:
        yield f"modules/{name}.ko", (0o100644, found[name].read_bytes())


def _load_order(found: dict[str, Path]) -> list[str]:
    """The modules with all that they depend on, each after its dependencies (`depends=` in a module's .modinfo)."""
    order: list[str] = []

    def add(name: str) -> None:
        if name in order:
            return
        if name not in found:
            raise LabError(f"kernel module {name} is not in {CACHE}/kernel; remove that directory to fetch it again")
        depends = re.search(rb"\0depends=([^\0]*)\0", found[name].read_bytes())
        for other in depends[1].decode().split(",") if depends and depends[1] else ():
            add(other)
        order.append(name)

    for name in _MODULES:
        add(name)
    return order


def _cpio(files: dict[str, tuple[int, bytes]]) -> bytes:
    """The archive in the "newc" format of cpio(5), uncompressed: TCG unpacks nothing faster."""
    out = bytearray()
    entries = [*files.items(), ("TRAILER!!!", (0, b""))]
    for inode, (path, (mode, data)) in enumerate(entries, start=1):
        name = path.encode() + b"\0"
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08x" % value for value in fields) + name
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)
