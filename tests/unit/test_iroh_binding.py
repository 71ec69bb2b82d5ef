"""What the iroh adapter knows of the binding: its errors, its slow copy, its end with the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from types import SimpleNamespace

import pytest

iroh = pytest.importorskip("iroh", reason="needs the extra [mesh]")


from quicprochat.adapters.iroh import FAST_CALL, FAST_COPY, fastcall, fastcopy, faults  # noqa: E402
from quicprochat.core.errors import LocalError, QuicprochatError  # noqa: E402

# ----------------------------------------------------------------------------------------------- errors


def test_every_kind_of_iroh_error_has_a_fault() -> None:
    assert set(faults.FAULTS) == set(iroh.IrohErrorKind)


@pytest.mark.parametrize("fault", list(faults.Fault))
def test_every_fault_has_an_error(fault: faults.Fault) -> None:
    error = faults.blame(fault, "a sentence", bytes(32))
    assert isinstance(error, QuicprochatError)
    assert str(error) == "a sentence"


def test_translated_error_says_what_iroh_only_says_on_request() -> None:
    with pytest.raises(iroh.IrohError) as caught:
        iroh.EndpointId.from_bytes(b"short")
    assert str(caught.value) == ""  # the reason for translating at all
    error = faults.translate(caught.value, "no key")
    assert isinstance(error, LocalError)
    assert str(error).startswith("no key: ")
    assert len(str(error)) > len("no key: ")


# --------------------------------------------------------------------------------------------- fastcopy


def test_copying_of_the_pinned_binding_is_repaired() -> None:
    assert FAST_COPY
    assert iroh.iroh_ffi._UniffiRustBufferBuilder.write is fastcopy._write


def known_module() -> SimpleNamespace:
    """The generated module as this repair knows it, in classes of our own."""
    real = iroh.iroh_ffi._UniffiRustBufferBuilder

    class Builder:
        def write(self, value: bytes) -> None: ...

        __init__ = real.__init__
        _reserve = real._reserve
        finalize = real.finalize
        discard = real.discard

    return SimpleNamespace(_UniffiRustBufferBuilder=Builder, _UniffiRustBuffer=iroh.iroh_ffi._UniffiRustBuffer)


def test_module_of_the_known_shape_is_repaired() -> None:
    module = known_module()
    assert fastcopy.install(module)
    assert module._UniffiRustBufferBuilder.write is fastcopy._write


def without_the_name(module: SimpleNamespace) -> None:
    del module._UniffiRustBufferBuilder


def without_the_buffer(module: SimpleNamespace) -> None:
    del module._UniffiRustBuffer


def with_another_signature(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.write = lambda self, value, offset: None


def with_other_fields(module: SimpleNamespace) -> None:
    module._UniffiRustBuffer = type("_UniffiRustBuffer", (), {"_fields_": fastcopy._FIELDS[:2]})


def with_a_method_less(module: SimpleNamespace) -> None:
    del module._UniffiRustBufferBuilder.discard


def with_other_results(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.finalize = lambda self: SimpleNamespace(data=b"", len=0, free=lambda: None)


def with_another_failure(module: SimpleNamespace) -> None:
    module._UniffiRustBufferBuilder.__init__ = lambda self: None


@pytest.mark.parametrize(
    "change",
    [
        without_the_name,
        without_the_buffer,
        with_another_signature,
        with_other_fields,
        with_a_method_less,
        with_other_results,
        with_another_failure,
    ],
)
def test_changed_binding_keeps_its_own_copying(change: Callable[[SimpleNamespace], None]) -> None:
    module = known_module()
    builder = module._UniffiRustBufferBuilder
    change(module)
    stock = builder.write
    assert not fastcopy.install(module)
    assert builder.write is stock


# --------------------------------------------------------------------------------------------- fastcall


def test_calls_of_the_pinned_binding_go_the_short_way() -> None:
    assert FAST_CALL
    assert iroh.iroh_ffi._uniffi_rust_call_async.__module__ == fastcall.__name__


async def stock_call(
    rust_future: object, ffi_poll: object, ffi_complete: object, ffi_free: object, lift_func: object,
    error_ffi_converter: object,
) -> None: ...  # fmt: skip


async def longer_call(
    rust_future: object, ffi_poll: object, ffi_complete: object, ffi_free: object, lift_func: object,
    error_ffi_converter: object, cancel: object,
) -> None: ...  # fmt: skip


def calling_module() -> SimpleNamespace:
    """As much of the generated module as this repair looks at."""
    real = iroh.iroh_ffi
    names = (
        "_UNIFFI_RUST_FUTURE_POLL_READY", "_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK",
        "_uniffi_get_event_loop", "_uniffi_rust_call_with_error",
    )  # fmt: skip
    return SimpleNamespace(_uniffi_rust_call_async=stock_call, **{name: getattr(real, name) for name in names})


def test_module_with_the_known_call_is_repaired() -> None:
    module = calling_module()
    assert fastcall.install(module)
    assert module._uniffi_rust_call_async is not stock_call


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("_uniffi_rust_call_async", longer_call),
        ("_uniffi_rust_call_async", print),
        ("_UNIFFI_RUST_FUTURE_POLL_READY", 1),
        ("_UNIFFI_RUST_FUTURE_CONTINUATION_CALLBACK", None),
        ("_uniffi_get_event_loop", None),
        ("_uniffi_rust_call_with_error", None),
    ],
)
def test_changed_binding_keeps_its_own_call(name: str, other: object) -> None:
    module = calling_module()
    setattr(module, name, other)
    stock = module._uniffi_rust_call_async
    assert not fastcall.install(module)
    assert module._uniffi_rust_call_async is stock


# ------------------------------------------------------------------------------------------ process end


@pytest.mark.parametrize("ending", ["await b.close(); await a.close()", "pass", "raise SystemExit(0)"])
def test_process_ends_in_peace(ending: str) -> None:
    program = f"""
        import asyncio, os
        from quicprochat.adapters.iroh import Endpoint
        from quicprochat.core.errors import UnavailableError
        kept = []
        async def waits(work):
            try:
                await work
            except UnavailableError:
                pass
        async def main():
            asyncio.get_running_loop().slow_callback_duration = 60  # a busy machine is no fault
            a = await Endpoint.bind(os.urandom(32), bind=("127.0.0.1", 0), relay_url=None)
            b = await Endpoint.bind(os.urandom(32), bind=("127.0.0.1", 0), relay_url=None)
            a.on_address_change(print)
            out = await a.connect(b.key, b.addresses(), None, 5)
            into = await b.accept()
            there = await out.stream(5)
            await there.write(b"x")
            here = await into.stream(5)
            await here.read()
            kept.extend([a, b, out, into, here, there, asyncio.create_task(waits(here.read()))])
            kept.append(asyncio.create_task(waits(b.accept())))
            await asyncio.sleep(0)
            {ending}
        asyncio.run(main())
        """
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
