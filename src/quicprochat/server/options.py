"""The options of ``qpc-server``, as data: the parser, the help, the configuration file and its example are made of it.

This module is loaded for ``qpc-server --version``: it imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """What an option takes."""

    TEXT = auto()
    DOMAIN = auto()
    DOMAINS = auto()
    SWITCH = auto()
    COUNT = auto()
    SIZE = auto()
    SHARE = auto()
    ADDRESS = auto()
    SERVER = auto()
    FILE = auto()
    CHOICE = auto()


@dataclass(frozen=True, slots=True)
class Option:
    """One decision of the operator. ``key`` names it in the file, and elsewhere unless ``flag`` and ``variable`` do.

    ``live``: a change takes effect on SIGHUP; else after a restart.
    """

    key: str
    kind: Kind
    default: str | int | float | bool
    help: str
    shown: str = ""
    flag: str = ""
    variable: str = ""
    choices: tuple[str, ...] = ()
    live: bool = False

    @property
    def flags(self) -> tuple[str, ...]:
        """How it is written on the command line."""
        short = ("-v",) if self.key == "verbose" else ()
        return (*short, self.flag or "--" + self.key.replace("_", "-"))

    @property
    def env(self) -> str:
        """Its environment variable."""
        return self.variable or f"QPC_{self.key.upper()}"


HOME_VARIABLE = "QPC_SERVER_HOME"
CONFIG_VARIABLE = "QPC_CONFIG"
PORT = 7000
FEDERATION_PORT = 7001
RELAY_PORT = 7002

OPTIONS = (
    Option("listen", Kind.ADDRESS, f"[::]:{PORT}", "address and UDP port for clients; [::] is every address of this"
           " machine, IPv4 as well; port 0 is any free one", "IP:PORT"),
    Option("federation_domain", Kind.DOMAIN, "", "the domain this server speaks for, as in name@domain; clients are"
           " told", "DOMAIN", flag="--domain", variable="QPC_LOCAL_DOMAIN"),
    Option("discovery", Kind.SWITCH, True, "announce the server on the local network by mDNS"),
    Option("announce_as", Kind.SERVER, "", "where clients on the local network are told to find the server; default:"
           " its first address", "HOST:PORT"),
    Option("registration", Kind.CHOICE, "open", "how a key becomes a user: open, by connecting; invite, by a code from"
           " qpc-server invite; list, by standing in registration_list", "MODE", choices=("open", "invite", "list"),
           live=True),
    Option("registration_list", Kind.FILE, "", "keys of the users when registration is list: 64 hexadecimal digits a"
           " line, and behind them what you like", "FILE", live=True),
    Option("block_list", Kind.FILE, "", "keys that are not served, whatever registration says; same form", "FILE",
           live=True),
    Option("users_max", Kind.COUNT, 100_000, "users at most; who is away for 90 days and has no name is forgotten",
           "N", live=True),
    Option("connections", Kind.COUNT, 10_000, "connections at most; each costs about 100 KiB of memory", "N"),
    Option("messages_per_recipient", Kind.COUNT, 1_000, "messages that may wait for one user", "N", live=True),
    Option("messages_per_pair", Kind.COUNT, 100, "messages from one author that may wait for one user", "N",
           live=True),
    Option("storage", Kind.SIZE, 4 << 30, "bytes of messages that may wait altogether", "SIZE", live=True),
    Option("storage_share", Kind.SHARE, 0.05, "part of storage that one author, or one client, may fill", "0..1",
           live=True),
    Option("receipt_storage", Kind.SIZE, 64 << 20, "bytes of receipts that may wait altogether, beside messages",
           "SIZE", live=True),
    Option("channel_posts", Kind.COUNT, 1_000, "posts kept of one channel that users follow, for 7 days at most", "N",
           live=True),
    Option("channel_storage", Kind.SIZE, 512 << 20, "bytes of posts kept altogether, beside messages", "SIZE",
           live=True),
    Option("disk_reserve", Kind.SIZE, 256 << 20, "with less room on the disk no new messages are taken", "SIZE",
           live=True),
    Option("relay_listen", Kind.ADDRESS, "", f"address and TCP port of a relay for nodes that cannot reach each other"
           f" directly, as in [::]:{RELAY_PORT}; off unless set. It is announced with the server", "IP:PORT"),
    Option("relay_for", Kind.CHOICE, "anybody", "whom the relay serves: anybody, or the users of this server; a node"
           " comes to the relay of whomever it writes to, also one from elsewhere", "WHOM",
           choices=("anybody", "users"), live=True),
    Option("relay_clients", Kind.COUNT, 1_000, "clients of the relay at most; one that reads slowly costs up to"
           " 512 KiB", "N"),
    Option("relay_rate", Kind.SIZE, 10 << 20, "bytes a second that the relay takes from one client, for long", "SIZE"),
    Option("metrics_listen", Kind.ADDRESS, "", "address and TCP port for Prometheus, as in 127.0.0.1:9700; off unless"
           " set", "IP:PORT"),
    Option("metrics_anywhere", Kind.SWITCH, False, "let metrics_listen be more than this machine; anybody who reaches"
           " the port then reads the figures"),
    Option("verbose", Kind.SWITCH, False, "say more on standard error, also who connects and writes: for hunting"
           " faults only"),
    Option("federation_enabled", Kind.SWITCH, False, "exchange messages with other domains; QPC_FEDERATION_LISTEN or"
           " --federation-listen turns it on too, unless the file says false"),
    Option("federation_listen", Kind.ADDRESS, f"[::]:{FEDERATION_PORT}", "address and UDP port for other domains'"
           " servers", "IP:PORT"),
    Option("federation_cert", Kind.FILE, "", "this server's certificate for other domains (DER); qpc-server cert issue"
           " makes it, its key and a copy of its authority", "FILE", live=True),
    Option("federation_key", Kind.FILE, "", "the key of federation_cert (DER)", "FILE", live=True),
    Option("federation_ca", Kind.FILE, "", "the authority (DER) that issued federation_cert; it is believed about every"
           " domain that has none of its own in [federation_cas]", "FILE", live=True),
    Option("federation_channels", Kind.DOMAINS, "", "domains of [federation_peers] with which channels are shared;"
           " each of the two has to name the other", "DOMAINS", live=True),
    Option("federation_outbox", Kind.SIZE, 512 << 20, "bytes of messages that may wait for one other domain", "SIZE",
           live=True),
    Option("federation_per_user", Kind.COUNT, 10_000, "messages of one user that may wait for one other"
           " domain", "N", live=True),
    Option("federation_share", Kind.SHARE, 0.25, "part of storage that what comes from one other domain may fill",
           "0..1", live=True),
    Option("federation_rate", Kind.COUNT, 20_000, "messages a second that are taken from one other domain; more wait"
           " there", "N", live=True),
)  # fmt: skip

BY_KEY = {option.key: option for option in OPTIONS}

TABLES = {
    "federation_peers": 'the domains to exchange messages with, and where their servers are, as in: "example.net" ='
    ' "192.0.2.1:7001"; "" for one that calls us, or that mDNS finds (live)',
    "federation_cas": 'an authority of its own for a domain (DER), as in: "example.net" ='
    ' "/etc/quicprochat/example.net.der"; nobody else is believed about that domain (live)',
}
"""Tables of the configuration file."""
PEERS_MAX = 1_000
"""Domains in ``[federation_peers]``: each has a queue and may have connections."""
