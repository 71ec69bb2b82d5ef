"""Run a request in this process: a one-shot call, the daemon, or the prompt; signals and faults become exit codes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from quicprochat.client.catalogue import COMMANDS
from quicprochat.client.errors import INTERRUPTED, OK
from quicprochat.client.grammar import Request
from quicprochat.client.output import SafeFormatter
from quicprochat.client.perform import Performer, need_mesh, say
from quicprochat.client.session import Session
from quicprochat.client.settings import Settings
from quicprochat.client.stdio import Output, read_text
from quicprochat.core.errors import LocalError


def run(request: Request, settings: Settings) -> int:
    """Carry out a request; return its exit code. Raises: QuicprochatError."""
    need_mesh(request)
    _configure_log(settings)
    if request.command == "repl":
        from quicprochat.client.prompt import fits

        if fits(os.environ) and not settings.json:
            from quicprochat.client.prompt.loop import prompt

            return _run(prompt(settings))
        from quicprochat.client.repl import repl

        return _run(repl(settings))
    if request.command == "daemon":
        return _run(daemon(settings), OK)
    if request.command == "relay":
        from quicprochat.client.relay import relay

        return _run(relay(request), OK)
    if request.command == "doctor":
        from quicprochat.client.doctor import doctor

        return _run(doctor(request, settings))
    if request.command in ("send", "broadcast"):
        request = _with_text(request)
    if request.command == "subscribe" and ("invite" in request.args or "passphrase" in request.args):
        from quicprochat.client.passphrase import with_secrets

        request = with_secrets(request)
    if request.command == "identity" and request.args.get("action"):
        from quicprochat.client.moving import prepare

        return _run(prepare(request, settings))
    return _run(one_shot(request, settings))


async def one_shot(request: Request, settings: Settings) -> int:
    """Call the owner of the home, or run a node for as long as the call takes. Raises: QuicprochatError."""
    out = Output()
    network = COMMANDS[request.command].network or bool(request.args.get("scan"))
    async with Session(settings, stays=False, network=network) as session:
        try:
            return await Performer(session, out, as_json=settings.json).perform(request)
        except BrokenPipeError:
            return OK  # whoever read our output has seen enough


async def daemon(settings: Settings) -> int:
    """Run the node until it is stopped. Raises: QuicprochatError, among them StoreError when the store failed."""
    session = Session(settings, stays=True, network=True)
    try:
        await session.own()
        node = session.node
        assert node is not None
        if not node.networked:
            say("no links in this installation, and no home server is chosen: messages are kept, none leaves or comes")
        with suppress(BrokenPipeError):
            await Output().write(" ".join(("ready", node.key.hex(), *map(str, node.addresses()))) + "\n")
        await node.failed()
    finally:
        await session.close()
    return OK


def _run(work: Coroutine[Any, Any, int], when_stopped: int = INTERRUPTED) -> int:
    return asyncio.run(_until_signalled(work, when_stopped))


async def _until_signalled(work: Coroutine[Any, Any, int], when_stopped: int) -> int:
    """Cancel the work at a signal, so that it ends in order."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signals.append(signal.SIGHUP)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    await asyncio.wait((task,))
    return when_stopped if task.cancelled() else task.result()


def _with_text(request: Request) -> Request:
    """Take the message from standard input where the arguments have none."""
    text = request.args.get("text")
    if text is None or text == "-":
        if os.isatty(0):
            say("write the message; Ctrl-D on a new line ends it")
        text = read_text()
    if not text.strip():
        raise LocalError(f"there is no text to {'post' if request.command == 'broadcast' else 'send'}")
    return replace(request, args={**request.args, "text": text})


def _configure_log(settings: Settings) -> None:
    if sys.stderr is None:
        return
    handler = logging.StreamHandler(sys.stderr)
    form = "%(levelname)s %(name)s: %(message)s" if settings.verbose else "qpc: %(message)s"
    handler.setFormatter(SafeFormatter(form))
    log = logging.getLogger("quicprochat")
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if settings.verbose else logging.WARNING)
    log.propagate = False
