"""Whether a relay answers: the question that any iroh client asks too."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

ANSWER_MAX_BYTES = 1_024


async def answers(url: str, timeout_s: float) -> bool:
    """Ask a relay's ``/ping``; any status of 2xx counts. Raises nothing: whatever goes wrong is no answer."""
    writer: asyncio.StreamWriter | None = None
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=ssl.create_default_context() if secure else None, limit=ANSWER_MAX_BYTES
            )
            writer.write(f"GET /ping HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readuntil(b"\r\n")
            return status.startswith(b"HTTP/1.1 2")
    except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await writer.wait_closed()
