"""Run the benchmarks one after the other, each as a process of its own; name some to run only those.

python -m bench [two_people | ephemeral | first_message | announcements | idle | flood | prompt | home_server
                 | federation | micro_store | carrying | growth | relay | relays
                 | channels]...
"""

from __future__ import annotations

import os
import subprocess
import sys

RUNS = {
    "two_people": ("bench.two_people",),
    "ephemeral": ("bench.two_people", "--ephemeral"),
    "first_message": ("bench.first_message",),
    "announcements": ("bench.announcements",),
    "flood": ("bench.flood",),
    "idle": ("bench.idle",),
    "prompt": ("bench.prompt",),
    "home_server": ("bench.home_server",),
    "federation": ("bench.federation",),
    "micro_store": ("bench.micro_store",),
    "carrying": ("bench.carrying",),
    "relay": ("bench.relay", "one"),
    "relays": ("bench.relay", "chain"),
    "channels": ("bench.channels",),
    "growth": ("bench.growth",),
}

NEED_ROOT = {"idle", "first_message", "announcements"}


def main() -> int:
    wanted = sys.argv[1:] or list(RUNS)
    unknown = [name for name in wanted if name not in RUNS]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; there are: {', '.join(RUNS)}", file=sys.stderr)
        return 2
    for name in wanted:
        if name in NEED_ROOT and os.geteuid() != 0:
            print(f"{name} is left out: it needs root for its network namespaces", file=sys.stderr)
            continue
        subprocess.run([sys.executable, "-m", *RUNS[name]], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
