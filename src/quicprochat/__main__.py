"""``python -m quicprochat`` is ``qpc``, where no program of that name was installed."""

import sys

from quicprochat.cli import main

sys.exit(main())
