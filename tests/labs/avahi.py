"""Avahi, the mDNS implementation of most Linux machines, with a message bus of its own, inside one namespace."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator

AVAHI = all(map(shutil.which, ("avahi-browse", "avahi-daemon", "dbus-daemon")))

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/>
</policy></busconfig>
"""
CONFIG = """[server]
use-ipv4=yes
use-ipv6=yes
[wide-area]
enable-wide-area=no
[publish]
disable-publishing=yes
"""
# ip netns exec gives the script a mount namespace of its own, so this /run is nobody else's.
START = f"""set -eu
mount -t tmpfs tmpfs /run
mkdir /run/avahi-daemon
printf %s '{BUS}' >/run/bus.conf
printf %s '{CONFIG}' >/run/avahi.conf
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/bus
dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile & bus=$!
until [ -S /run/bus ]; do sleep 0.05; done
avahi-daemon -f /run/avahi.conf --no-drop-root --no-chroot --no-rlimits & avahi=$!
trap 'kill $avahi $bus; wait' EXIT
"""
SCRIPT = f"""{START}
until avahi-browse -rtp "$1"; do sleep 0.1; done
"""


def avahi_browse(name: str, service: str, enough: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Return ``avahi-browse -rtp`` in a namespace: of each instance its resolved line; tried until it is ``enough``."""
    found: dict[str, str] = {}
    end = time.monotonic() + 20
    while time.monotonic() < end and not enough(found):
        done = subprocess.run(
            ["ip", "netns", "exec", name, "bash", "-c", SCRIPT, "avahi", service],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        for line in done.stdout.splitlines():
            fields = line.split(";")
            if fields[0] == "=":
                found[fields[3]] = line
    return found


@contextlib.contextmanager
def avahi_beside(name: str) -> Iterator[None]:
    """Run Avahi in a namespace, once it answers, until the end."""
    script = f"{START}\nuntil avahi-browse -atp >/dev/null; do sleep 0.1; done\necho ready\nread -r _\n"
    command = ["ip", "netns", "exec", name, "bash", "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        try:
            assert running.stdout.readline() == "ready\n"
            yield
        finally:
            running.stdin.close()
            running.wait(20)
