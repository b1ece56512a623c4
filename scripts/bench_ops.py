#!/usr/bin/env python3
"""The same as `arcmtp bench ops`."""

import sys

from arcmtp.cli import main

sys.exit(main(["bench", "ops", *sys.argv[1:]]))
