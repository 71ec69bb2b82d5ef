"""Messages of Cap'n Proto's RPC by hand, for saying what no library would say (capnp's rpc.capnp)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import capnp
from fuzz.common import instrumented

with instrumented():
    from quicprochat.adapters import rpc

_SCHEMAS = Path(capnp.__file__).parent
protocol: Any = capnp.load(str(_SCHEMAS / "rpc.capnp"), imports=[str(_SCHEMAS.parent)])

ENTRANCE = rpc.home.Entrance.schema.node.id
SESSION = rpc.home.Session.schema.node.id


def bootstrap(question: int) -> bytes:
    message = protocol.Message.new_message()
    message.init("bootstrap").questionId = question
    return bytes(message.to_bytes())


def call(question: int, on: int, path: Sequence[int], interface: int, method: int, params: Any = None) -> bytes:
    """A call on the result of question ``on``, at this path of pointer fields."""
    message = protocol.Message.new_message()
    made = message.init("call")
    made.questionId, made.interfaceId, made.methodId = question, interface, method
    promised = made.target.init("promisedAnswer")
    promised.questionId = on
    steps = promised.init("transform", len(path))
    for n, field in enumerate(path):
        steps[n].getPointerField = field
    if params is not None:
        made.params.content = params
    return bytes(message.to_bytes())


def finish(question: int) -> bytes:
    message = protocol.Message.new_message()
    message.init("finish").questionId = question
    return bytes(message.to_bytes())


def enter(question: int = 1, on: int = 0, version: int = 1) -> bytes:
    params = rpc.home.Entrance.schema.methods["enter"].param_type
    return call(question, on, (), ENTRANCE, 0, _struct(params, version=version))


def session_call(question: int, method: str, on: int = 1, **arguments: Any) -> bytes:
    """A call on the session that question ``on`` opened."""
    schema = rpc.home.Session.schema
    index = [one.name for one in schema.node.interface.methods].index(method)
    return call(question, on, (0,), SESSION, index, _struct(schema.methods[method].param_type, **arguments))


def _struct(schema: Any, **fields: Any) -> Any:
    return capnp.lib.capnp._StructModule(schema, "params").new_message(**fields)


def subscribe(question: int = 9, on: int = 1, export: int = 5) -> bytes:
    """A subscription whose receiver is this export of the client's."""
    message = protocol.Message.new_message()
    made = message.init("call")
    made.questionId, made.interfaceId, made.methodId = question, SESSION, 4
    promised = made.target.init("promisedAnswer")
    promised.questionId = on
    promised.init("transform", 1)[0].getPointerField = 0
    made.init("params").init("capTable", 1)[0].senderHosted = export
    body = bytearray(message.to_bytes()[8:])
    # The content, which no builder makes without a connection: a struct of one pointer, capability 0.
    params = 8 * 3 + 8 * struct.unpack_from("<H", body, 16 + 4)[0] + 8
    payload = params + 8 + 8 * (struct.unpack_from("<I", body, params)[0] >> 2)
    target = (len(body) - payload - 8) // 8
    body[payload : payload + 8] = struct.pack("<IHH", target << 2, 0, 1)
    body += struct.pack("<II", 3, 0)
    return struct.pack("<II", 0, len(body) // 8) + bytes(body)
