"""`python -m arcmtp`: the `arcmtp` command."""

import sys

from arcmtp.cli import main

sys.exit(main())
