"""The commands there are, as data: the parsers, the help and the manual pages read it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Value(Enum):
    """What an option takes."""

    FLAG = auto()
    TEXT = auto()
    COUNT = auto()
    CURSOR = auto()
    SINCE = auto()
    """A cursor, or a moment: how long ago, or a date."""
    NUMBER = auto()
    SECONDS = auto()


class Shape(Enum):
    """What a command answers with."""

    OBJECT = auto()
    LIST = auto()
    """One line with a list, in JSON."""
    STREAM = auto()
    """One object a line, in JSON."""


@dataclass(frozen=True, slots=True)
class Option:
    """An option; ``key`` names it in a request."""

    flags: tuple[str, ...]
    help: str
    value: Value = Value.TEXT
    shown: str = ""
    choices: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.flags[-1].lstrip("-").replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable of a global option."""
        return f"QPC_{self.key.upper()}"


@dataclass(frozen=True, slots=True)
class Word:
    """An argument without a flag; ``rest`` takes all that follow, joined by spaces.

    ``hidden`` are choices for programs, which no person is offered.
    """

    key: str
    shown: str
    required: bool = True
    rest: bool = False
    choices: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """``mesh``: exists as ``qpc mesh <name>``; ``plain``: exists without that word, and then without the extra.

    ``network`` says whether a call that must run a node of its own needs links.
    """

    name: str
    summary: str
    words: tuple[Word, ...] = ()
    options: tuple[Option, ...] = ()
    details: str = ""
    shape: Shape = Shape.OBJECT
    plain: bool = False
    mesh: bool = True
    network: bool = False

    @property
    def usage(self) -> str:
        """The command and its words and options, as one types them."""
        words = (word.shown if word.required else f"[{word.shown}]" for word in self.words)
        options = (f"[{o.flags[0]}{' ' + o.shown if o.shown else ''}]" for o in self.options)
        return " ".join((self.name, *words, *options))


GLOBALS = (
    Option(("--home",), "directory of your key, contacts and messages (default: quicprochat in the XDG data"
           " directory)", shown="DIR"),
    Option(("--bind",), "address and UDP port for links; port 0 is any free one (default: every address, and the"
           " port of the last run)", shown="IP:PORT"),
    Option(("--relay",), "iroh relay for peers that cannot reach each other directly", shown="URL"),
    Option(("--server",), "home server for this run (default: the one chosen with: qpc server)", shown="HOST:PORT"),
    Option(("--network",), "how far your node reaches: lan, local networks only and no question to DNS; community (the"
           " default), also whatever you name, and relays of your community that have local addresses; internet, also"
           " other relays that contacts name", shown="MODE", choices=("lan", "community", "internet")),
    Option(("--no-discovery",), "neither look for peers nor announce yourself on the local network (mDNS)", Value.FLAG),
    Option(("--quiet",), "look for peers on the local network without announcing yourself; who is found is linked, and"
           " learns your key", Value.FLAG),
    Option(("--carry",), "whose messages your node takes, to pass them on or keep for who comes by:"
           " no, contacts (what your contacts write or are written) or all (the default); who carries sees who writes"
           " to whom, never what", shown="WHOSE", choices=("no", "contacts", "all")),
    Option(("--ephemeral",), "keep messages in memory only; they are gone when the node stops", Value.FLAG),
    Option(("--json",), "JSON on standard output: one object a line, a list as one array on one line; errors as JSON on"
           " standard error", Value.FLAG),
    Option(("-v", "--verbose"), "say more on standard error", Value.FLAG),
)  # fmt: skip

QR = Option(("--qr",), "show the ticket as a QR code too", Value.FLAG)
PEER = Word("peer", "<peer>")
TOPIC = Word("topic", "<topic>")
OPEN_MEANS = "anyone who knows the topic can read it"
NAME = Option(("--name",), "what you want to call the peer", shown="N")
_PEER_HELP = "<peer> is a contact's name, a key, or the beginning of a key, of 8 digits or more."

_ALL = (
    Command("identity", "show your key, your ticket and your contacts", (
                Word("action", "export|import", required=False, choices=("export", "import")),
                Word("file", "FILE", required=False)),
            plain=True, network=True,
            options=(Option(("--name",), "what you call yourself from now on; peers learn it", shown="N"),
                     QR,
                     Option(("--old-copy-is-off",), "with import: the copy that you move from is stopped for good",
                            Value.FLAG)),
            details="The ticket is what another person adds to find you. It holds your key and addresses, no secret."
            " export writes your key, name, contacts, channels and the keys of messages under way into a new FILE that"
            " a passphrase opens; messages are not in it. import makes that identity the one of an unused home. The"
            " passphrase is asked for, or taken from QPC_PASSPHRASE or the first line of standard input. Two running"
            " copies of one identity make messages go astray: stop the old one first."),
    Command("peers", "list contacts, peers met or heard of, and who is on the local network", shape=Shape.LIST,
            options=(Option(("--scan",), "first wait so long for peers to be found", Value.SECONDS, "S"),)),
    Command("server", "connect to a home server, or show how you stand with it",
            (Word("server", "<host:port|domain|digits>", required=False),), plain=True, network=True,
            options=(Option(("--off",), "have no home server any more", Value.FLAG),
                     Option(("--trust",), "the server's fingerprint, as its operator told you: accepted at the first"
                            " use of an announced server, and of any server even if it had another before",
                            shown="HEX")),
            details="A home server keeps messages for you while you are away, and for others from you; it sees keys"
            " and sizes, never text. It is remembered, and your node stays connected to it. One that announces itself"
            " on the local network (qpc mesh peers) is named by its domain, or by the first 8 digits of its fingerprint"
            " or more; at its first use the prompt shows the fingerprint and asks, and a single command needs --trust,"
            " for anybody there can announce anything. Of a server whose address you write the key is remembered at"
            " the first visit. Exit code 4: nobody has confirmed the fingerprint yet, or who answers has another, and"
            " nothing was sent."),
    Command("register", "become a user of your home server, or take a name there",
            (Word("name", "<name>", required=False),), plain=True, network=True,
            options=(Option(("--invite",), "the code that its operator gave you", shown="CODE"),),
            details="A name at a home server belongs to the key that took it first. Exit code 7: the server said no."),
    Command("add", "add a contact, or rename one", (Word("contact", "<ticket|key[@ip:port]|peer>"),), (NAME,),
            plain=True,
            details="A peer that is in reach or has written can be added by the first 8 digits of its key or more."
            " Messages from a contact are no requests any more. Without --name a contact is called by the"
            " first digits of its key. Compare digits with: qpc mesh verify <peer>. Exit code 4: the name is, or"
            " looks like, that of a contact with another key."),
    Command("verify", "show the digits that you and a peer compare", (PEER,), plain=True,
            options=(Option(("--confirm",), "note that the digits were the same on both sides", Value.FLAG),
                     Option(("--qr",), "show the digits as a QR code too, for the other's telephone", Value.FLAG),
                     Option(("--scanned",), "what you scanned from the other's screen: compared, and noted if it is"
                            " right", shown="TEXT")),
            details=f"{_PEER_HELP} Read the digits to each other by a way on which you know each other's voice or"
            " face. The same digits mean that nobody stands between you. Exit code 4: what was scanned does not"
            " belong to the two of you."),
    Command("block", "refuse a peer's links and messages", (PEER,), plain=True, details=_PEER_HELP),
    Command("unblock", "take a peer's links and messages again", (PEER,), plain=True, details=_PEER_HELP),
    Command("trust", "take what a contact posts as an emergency for one", (PEER,),
            details=f"{_PEER_HELP} Anybody can call a post an emergency (qpc mesh broadcast --emergency). Only from"
            " those you trust is it shown as one, in any conversation and with a bell, and has room kept for it on"
            " this node. From all others it is an ordinary post. Trust few: the fire brigade, who looks after the"
            " mesh. Exit code 7: that peer is blocked."),
    Command("untrust", "take a peer's emergencies for ordinary posts again", (PEER,), details=_PEER_HELP),
    Command("send", "send a message", (PEER, Word("text", "<text>|-", required=False, rest=True)), plain=True,
            network=True,
            options=(
                Option(("--wait",), "wait until the message is in this state", shown="STATE",
                       choices=("relayed", "delivered")),
                Option(("--timeout",), "how long --wait waits (default 30)", Value.SECONDS, "S"),
                Option(("--ttl",), "how long the message may live (default 7 days, at most 14)", Value.COUNT, "S"),
                Option(("--require-fs",), "rather not send than without a forward-secret key", Value.FLAG),
            ),
            details=f"{_PEER_HELP} The words of the text are joined by spaces; - or no text reads standard input"
            " (one newline at its end is dropped). At the prompt, one pair of double quotes around the whole text is"
            " left out, as in a shell. When the command returns, the message is safe on your disk. Where"
            " no daemon runs, the command runs a node itself and stays up to 5 seconds for delivery; after that the"
            " message leaves when a node runs again. Exit code 6: --wait was not met in time; 7: the message was"
            " refused."),
    Command("cancel", "stop offering a message", (Word("id", "<id>"),), plain=True,
            details="A copy that has left may still arrive."),
    Command("inbox", "show received messages and posts, read or not", shape=Shape.STREAM, plain=True,
            options=(Option(("--peer",), "only what this peer wrote", shown="P"),
                     Option(("--since",), "only what came after this cursor", Value.CURSOR, "CURSOR"))),
    Command("listen", "show unread messages and posts, then each as it comes", shape=Shape.STREAM, plain=True,
            network=True,
            options=(Option(("--count",), "end after so many messages and posts (news of sent ones are not counted)",
                            Value.COUNT, "N"),
                     Option(("--timeout",), "end after so long; with --count unmet the exit code is then 6",
                            Value.SECONDS, "S")),
            details="A line counts as read once it was written out; before that, it comes again."),
    Command("subscribe", "join a channel, or make one", (TOPIC,),
            options=(Option(("--key",), "the key of a private channel, 64 hexadecimal digits; new makes one and shows"
                            " it", shown="HEX|new"),
                     Option(("--invite",), "what a member gave you (qpc mesh invite); - reads it from standard input",
                            shown="STRING|-"),
                     Option(("--passphrase",), "make a private channel that a passphrase opens together with an invite;"
                            " or join one with --invite", Value.FLAG),
                     Option(("--announce",), "make an announcement channel: only you, and whom you list, post",
                            Value.FLAG)),
            details=f"With the topic alone the channel is open: {OPEN_MEANS}, and can post into it. With a key it is"
            " private: whoever was given the key reads all posts of the channel, earlier and later ones, and can post."
            " An invite is better than a bare key: it also says who the owner is, so that the channel's key can be"
            " renewed (qpc mesh rotate). Who makes a channel is its owner. Nobody"
            " posts under another's name. Peers you are linked to see which channels you are in, but of a private one"
            " neither topic nor key. One topic stands for one channel on your node: with nothing more, the topic of a"
            " private channel that you are in answers with its key. The passphrase is asked for, or taken from"
            " QPC_PASSPHRASE or standard input (after the invite, where that is read there too); it is not in the"
            " invite, so tell it by another way. On a machine that you share, use --invite - or the"
            " prompt: others see the words of a command. Exit code 4: the passphrase is another one, or the invite"
            " names another owner than you know."),
    Command("invite", "show what lets somebody into a private channel", (TOPIC,), (Option(
                ("--qr",), "show it as a QR code too, for the other's telephone", Value.FLAG),),
            details="Whoever has the invite reads and writes there (in an announcement channel: reads), so hand it over"
            " where nobody else hears it. They write: qpc mesh subscribe <topic> --invite STRING. A typing error in it"
            " is noticed. <topic> there is what they call the channel on their node. The invite of a channel with a"
            " passphrase has no secret in it. An open channel needs none: tell the topic. At the prompt, in a channel,"
            " the topic may be left out."),
    Command("members", "list who is known to be in a channel", (TOPIC,), shape=Shape.LIST,
            details="Those who said that they joined, and those who wrote; of an open channel only the latter. A member"
            " who never was in reach of yours is missing here. To the owner it also says who has the channel's key in"
            " use: has, missing, or the state of the message that brings it. At the prompt, in a channel, the topic may"
            " be left out."),
    Command("posters", "list who posts into an announcement channel; its owner changes that", (TOPIC,
                Word("action", "add|remove", required=False, choices=("add", "remove")),
                Word("peer", "<peer>", required=False)),
            details="The owner's list travels as a post, and the newest counts: a post of somebody who is not on it is"
            " neither shown nor handed on. Exit code 7: the channel is not yours."),
    Command("rotate", "give a channel of yours a new key", (TOPIC,), network=True,
            options=(Option(("--without",), "leave this peer out", shown="PEER"),),
            details="The new key goes to each member in a message of its own, also to those who are away; what is"
            " posted meanwhile waits for it. Who is left out reads nothing that is posted under the new key, but goes"
            " on reading what members post who have not got it yet. Earlier keys are kept for two weeks, for posts that"
            " are under way. Where no daemon runs, the messages leave when a node runs. Exit code 7: the channel is not"
            " yours."),
    Command("mute", "hear of a channel no more", (TOPIC,),
            details="You stay in it: its posts come into the inbox as read ones, and are kept for others. Emergencies"
            " of those you trust are shown all the same. At the prompt, in a channel, the topic may be left out."),
    Command("unmute", "hear of a channel again", (TOPIC,),
            details="At the prompt, in a channel, the topic may be left out."),
    Command("unsubscribe", "leave a channel", (TOPIC,),
            details="Forgets its keys and the posts kept for others; the inbox keeps what came. To come back into a"
            " private channel takes an invite again. The other members are told, as far as they are linked now."),
    Command("channels", "list the channels you are in, and who can read them", shape=Shape.LIST,
            details=f"Open means that {OPEN_MEANS}; private, that whoever has the key can; announcement, the same, and"
            " only its owner and whom the owner lists post there. posts are those kept for subscribers who come later,"
            " your own among them, and the notes of who joined or may post, which no history shows; members, those"
            " known to be there, and you; gaps, where posts of somebody are missing between others and may still come:"
            " qpc mesh history <topic> shows which. A post without a key (in JSON: unreadable) is sealed with one that"
            " you have not got, and waits for it."),
    Command("history", "show a channel's posts, each after what it answers", (TOPIC,), shape=Shape.STREAM,
            options=(Option(("--since",), "only what came after this cursor, or since a time: 2d, 3h, 1h30m,"
                            " 2026-11-23, 2026-11-23T18:30 (local, or with its zone)", Value.SINCE, "CURSOR|TIME"),
                     Option(("--count",), "the newest so many of them (default: 100, or with --since all)",
                            Value.COUNT, "N")),
            details="Your own posts are shown too. No clock decides the order: a post stands after those that its"
            " author had read, and after the author's earlier ones; what nothing ties stands as it came. Where posts of"
            " an author are missing between others, a line says so; it goes when they have come, which they may for"
            " 14 days. What was written out counts as read. --since goes by when posts came here. A history reaches"
            " back 100,000 posts. At the prompt, in a channel, the topic may be left out. Exit code 5: you"
            " are in no such channel."),
    Command("broadcast", "post into a channel you are in", (TOPIC, Word("text", "<text>|-", required=False, rest=True)),
            network=True,
            options=(Option(("--emergency",), "say that this is an emergency: so it is shown to whoever trusts you"
                            " with that (qpc mesh trust), to others as an ordinary post", Value.FLAG),),
            details="Who can read it: qpc mesh channels. The post goes to every linked peer that subscribes or"
            " carries, and for 7 days to those that link later (of your last 1,000 posts in a channel). There are no"
            " receipts. A topic you have not joined is an error, so that a typo does not make a private word public. At"
            " the prompt, one pair of double quotes around the whole text is left out, as in a shell. Where no daemon"
            " runs, the command runs a node itself and stays up to 5 seconds for a first subscriber."),
    Command("store", "show what is stored and what was done", plain=True,
            details="carried are messages and receipts of others that wait here for a way or somebody who comes by;"
            " passed_on, how many were handed on to the next node or their recipient; evicted, how many made room"
            " for others: their authors still have them."),
    Command("route", "list the ways to other peers", shape=Shape.LIST,
            details="direct is a link, mesh a way over other nodes, server your home server. cost is a round trip in"
            " milliseconds and 32 for each hop, more where packets get lost; up, how long the way has been there. In"
            " JSON, relayed says whether a relay carries the link, and underlay what Babel or batman-adv on this"
            " machine thinks of the way."),
    Command("trace", "show what happened to a message of yours", (Word("id", "<id>"),), plain=True),
    Command("outbox", "list your messages that nobody has confirmed yet", shape=Shape.LIST, plain=True,
            details="The newest 1,000 that are queued or relayed, newest last. To follow one: qpc trace <id>;"
            " to withdraw it: qpc cancel <id>."),
    Command("bundle", "take messages to others by hand, in a file", (
                Word("action", "export|import", choices=("export", "import")), Word("file", "FILE")),
            plain=True,
            options=(Option(("--for",), "with export: only what is for this peer", shown="PEER"),),
            details="export copies what waits on this node, yours and what it carries for others, into a new FILE, for"
            " a stick; nothing leaves the outbox by that, and each message is sealed as on its way over links."
            " import takes such a FILE in: what is for you comes into the inbox, the rest is passed on and carried. The"
            " confirmations go back in the same way, by links or by the next bundle. Who finds the file sees who writes"
            " to whom, never what. Exit code 7: the file is damaged or no bundle; nothing of it was taken."),
    Command("requests", "list strangers who wrote to you", shape=Shape.LIST),
    Command("accept", "make a contact of a stranger who wrote to you", (PEER,), (NAME,), details=_PEER_HELP),
    Command("daemon", "run your node until it is stopped", plain=True, mesh=False, network=True,
            details='Prints one line, "ready", your key and your addresses, once it answers. Every other command'
            " with the same home then talks to it. SIGTERM and SIGINT stop it. If another process owns the home, it"
            " waits up to 5 seconds for a single command to end, and ends itself (exit code 3) if a daemon or a"
            " prompt is there."),
    Command("relay", "carry for nodes that cannot reach each other directly", plain=True, mesh=False,
            options=(Option(("--listen",), "address and TCP port (default: [::]:7002, every address of this machine)",
                            shown="IP:PORT"),
                     Option(("--allow",), "only for the keys in this file: 64 hexadecimal digits a line, and behind"
                            " them what you like; SIGHUP reads it again", shown="FILE")),
            details="A relay of iroh, on a machine that all can reach: nodes are told of it with --relay"
            " http://HOST:7002. It sees which keys exchange how much, and nothing of what they say. It needs no home"
            ' and no key. Prints one line, "ready" and its address, once it answers; SIGTERM and SIGINT stop it.'),
    Command("sim", "run the mesh in a simulated network", (
                Word("kind", "topology|trace", choices=("topology", "trace")), Word("file", "FILE")), plain=True,
            mesh=False,
            options=(Option(("--pairs",), "pairs of nodes to send between (default: 1000)", Value.COUNT, "N"),
                     Option(("--cut",), "take this node away once routes have settled", shown="NODE"),
                     Option(("--window",), "measure settled traffic over so long (default: an hour; 5 minutes where"
                            " the graph is large)", Value.SECONDS, "S"),
                     Option(("--channel",), "write posts into a channel instead, then cut the graph in two and join it",
                            Value.FLAG),
                     Option(("--subscribers",), "with --channel: the share of the nodes that read it (default: 1)",
                            shown="SHARE"),
                     Option(("--posts",), "with --channel: how many are written (default: 40)", Value.COUNT, "N"),
                     Option(("--messages",), "messages that people write in a trace (default: 1000)", Value.COUNT, "N"),
                     Option(("--ttl",), "how long a message of a trace lives (default: 86400)", Value.SECONDS, "S"),
                     Option(("--router",), "who decides what is carried (default: epidemic, as real nodes do)",
                            shown="NAME",
                            choices=("epidemic", "prophet", "spray", "direct", "prophet-paying", "spray-paying")),
                     Option(("--against",), "run the other routers too (those that pay for nothing else)", Value.FLAG),
                     Option(("--bytes-per-s",), "what a contact of a trace can carry (default: everything)",
                            Value.COUNT, "B"),
                     Option(("--store",), "messages of others that a node keeps (default: all)", Value.COUNT, "N"),
                     Option(("--seed",), "what chance begins with; the same seed gives the same run (default: 1; of a"
                            " trace: the reference messages)", Value.NUMBER, "S"),
                     Option(("--plot",), "draw a picture into this file: of a graph the routes, of a trace what arrived"
                            " over time; takes the extra plot", shown="OUT.png")),
            details="topology: every node of a graph finds its ways to all others; FILE holds nodes and links, plain or"
            " gzip. trace: people meet and part, and carry each other's messages; FILE has lines of time and two nodes,"
            " plain or gzip. Nothing touches the network or your home. Formats: docs/simulator.md."),
    Command("doctor", "look what works of reaching others, and say what to do", plain=True, mesh=False, network=True,
            details="One line for each step: ok, warn or fail, what was found, and what to do. Looks at the"
            " installation, the disk, the node, interfaces, IPv6, multicast and mDNS, relays, the home server, the kind"
            " of NAT (as far as contacts say where they see you), the clock, buffers, and the mesh underneath (Babel,"
            " batman-adv). Asks the home's node where one runs, else runs one for some seconds, and contacts nothing"
            " that --network does not allow. Exit code 3: a step failed."),
    Command("completion", "print a script that completes commands with Tab", (
                Word("shell", "bash|zsh|fish", choices=("bash", "zsh", "fish"), hidden=("contacts", "topics")),),
            plain=True, mesh=False,
            details="For bash, put this into ~/.bashrc: source <(qpc completion bash). For zsh, after compinit in"
            " ~/.zshrc: source <(qpc completion zsh). For fish: qpc completion fish >"
            " ~/.config/fish/completions/qpc.fish. Names of contacts and topics of channels are completed as well."),
    Command("man", "print the manual page", plain=True, mesh=False,
            details="To read it: qpc man | man -l - To install it: mkdir -p ~/.local/share/man/man1 && qpc man >"
            " ~/.local/share/man/man1/qpc.1"),
)  # fmt: skip

COMMANDS = {command.name: command for command in _ALL}
