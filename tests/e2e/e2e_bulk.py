"""Megabytes over TCP, there and back between two namespaces, by their checksums."""

from __future__ import annotations

import subprocess
import sys

from labkit import netns
from labkit.run import run

BULK = 3 << 20  # bytes
SERVE = """\
import hashlib, os, socket, sys
own, size = sys.argv[1], int(sys.argv[2])
data = os.urandom(size)
with socket.create_server((own, 7072), family=socket.AF_INET6 if ":" in own else socket.AF_INET) as server:
    print("ready", flush=True)
    with server.accept()[0] as connection:
        connection.settimeout(60)
        got = hashlib.sha256()
        left = size
        while left and (part := connection.recv(65536)):
            got.update(part)
            left -= len(part)
        connection.sendall(got.digest() + hashlib.sha256(data).digest() + data)
"""
CARRY = """\
import hashlib, os, socket, sys
data = os.urandom(int(sys.argv[2]))
with socket.create_connection((sys.argv[1], 7072), 60) as connection:
    connection.sendall(data)
    got = b""
    while part := connection.recv(65536):
        got += part
    assert got[:32] == hashlib.sha256(data).digest()
    assert got[32:64] == hashlib.sha256(got[64:]).digest()
    print(len(got) - 64)
"""


def carried(client: str, server: str, to: str) -> int:
    """How many bytes came there and back over TCP, between namespaces; raises LabError when they did not."""
    words = [to, str(BULK)]
    with subprocess.Popen(
        netns.argv_in(server, [sys.executable, "-c", SERVE, *words]), stdout=subprocess.PIPE
    ) as serving:
        try:
            assert serving.stdout is not None
            assert serving.stdout.readline() == b"ready\n"
            argv = netns.argv_in(client, [sys.executable, "-c", CARRY, *words])
            return int(run(argv, timeout=90.0).stdout)
        finally:
            serving.kill()
