"""A QR code in letters: for a screen that another person's telephone or laptop looks at."""

from __future__ import annotations

BORDER = 4
"""Modules of quiet around the code, as ISO/IEC 18004 §6.3.8 wants them."""
_BLOCKS = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}


def qr_text(data: str, encoding: str) -> str:
    """Return the code as lines: two rows of modules a line in half blocks, or ``##`` where there are no such letters.

    Light modules are drawn, since terminals are dark as a rule; readers take the reverse as well.
    """
    import segno

    light = [
        [not module for module in row] for row in segno.make(data, micro=False, error="m").matrix_iter(border=BORDER)
    ]
    try:
        "█▀▄".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        lines = ["".join("##" if module else "  " for module in row) for row in light]
    else:
        nothing = [False] * len(light[0])
        pairs = zip(light[::2], [*light[1::2], nothing], strict=False)
        lines = ["".join(map(_BLOCKS.__getitem__, zip(upper, lower, strict=True))) for upper, lower in pairs]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def qr_content(command: str, item: dict[str, str]) -> str:
    """Return what the code of a command's answer holds: a ticket or invite in capitals, which make it small, or bare
    digits."""
    if command in ("identity", "invite"):
        return item["ticket" if command == "identity" else "invite"].upper()
    return item["fingerprint"].replace(" ", "")
