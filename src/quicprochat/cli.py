"""The command line's entry point."""

import argparse
from collections.abc import Sequence

from quicprochat import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and run what they ask for; the result is the exit code."""
    parser = argparse.ArgumentParser(prog="qpc", description="A mesh messenger for community networks.")
    parser.add_argument("--version", action="version", version=f"qpc {__version__}")
    parser.parse_args(argv)
    parser.print_help()
    return 0
