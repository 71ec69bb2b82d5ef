"""``qpc identity export FILE`` and ``qpc identity import FILE``: an identity into a file, and out of it.

The passphrase comes from QPC_PASSPHRASE, else from the terminal, else from the first line of standard input; never from
the command line, which every user of the machine can read.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from quicprochat.client.errors import OK
from quicprochat.client.grammar import Request
from quicprochat.client.output import display_line, plural
from quicprochat.client.passphrase import passphrase, typed
from quicprochat.client.perform import say
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.socket import Json
from quicprochat.client.stdio import STDIN, Output
from quicprochat.core.errors import LocalError

_ASTRAY = (
    "two running copies of one identity make messages go astray: each gets some of them, and neither knows of the "
    "other's"
)


def prepare(request: Request, settings: Settings) -> Coroutine[Any, Any, int]:
    """Ask the person for what is needed; return the work to be done then. Raises: LocalError."""
    action, file = request.args["action"], request.args.get("file")
    if not file:
        raise LocalError(f"which file? Write: qpc identity {action} FILE")
    path = Path(file).expanduser().absolute()
    if action == "export":
        if path.exists() or path.is_symlink():
            raise LocalError(f"{path} exists already, and nothing is written over; choose another name", code="exists")
        from quicprochat.core.export import check_new_passphrase

        return _export(path, passphrase(check_new_passphrase), settings)
    from quicprochat.adapters.exportfile import read_export

    data = read_export(path)
    _check_old_copy(confirmed=bool(request.args.get("old_copy_is_off")))
    return _import(path, data, passphrase(), settings)


async def _export(path: Path, secret: str, settings: Settings) -> int:
    from quicprochat.adapters.exportfile import write_export

    async with Session(settings, stays=False, network=False) as session:
        me = await session.ask("identity", {})
        channels = await session.ask_all("channels", {})
        parts = await session.ask_all("export", {"passphrase": secret})
    data = b"".join(base64.b64decode(part["data"]) for part in parts)
    write_export(path, data)
    answer = {
        "file": str(path),
        "bytes": len(data),
        "public_key": me["public_key"],
        "name": me["name"],
        "contacts": len(me["peers"]),
        "channels": len(channels),
    }
    if settings.json:
        await Output().write(json.dumps(answer) + "\n")
        return OK
    what = f"your key, your name, {_people_and_places(answer)}; no messages"
    await Output().write(f"{display_line(str(path))}: {what}\n")
    say(f"whoever has this file and the passphrase is you. Stop this copy for good before you import it: {_ASTRAY}.")
    return OK


async def _import(path: Path, data: bytes, secret: str, settings: Settings) -> int:
    import asyncio

    from quicprochat.p2p.moving import import_identity

    done = await asyncio.to_thread(import_identity, settings.home, data, secret)
    identity = done.identity
    answer = {
        "public_key": identity.key.hex(),
        "name": identity.name,
        "contacts": len(identity.contacts),
        "channels": done.channels,
        "prekeys": done.prekeys,
    }
    if settings.json:
        await Output().write(json.dumps(answer) + "\n")
        return OK
    name = display_line(identity.name, 64) or identity.key.hex()[:16]
    await Output().write(
        f"this home is {name} now, with {_people_and_places(answer)}; messages stayed in the old home\n"
    )
    return OK


def _people_and_places(answer: Json) -> str:
    return f"{plural(answer['contacts'], 'contact')} and {plural(answer['channels'], 'channel')}"


def _check_old_copy(*, confirmed: bool) -> None:
    if confirmed:
        return
    if not os.isatty(STDIN):
        raise LocalError(f"stop the old copy for good, then say so with --old-copy-is-off: {_ASTRAY}")
    say(f"Stop the old copy for good before you go on: {_ASTRAY}.")
    if typed(lambda: input("Is it off? (yes/no) ")).strip().lower() != "yes":
        raise LocalError("nothing was imported; come back when the old copy is off", code="policy")
