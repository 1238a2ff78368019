"""`python -m tracebridge` is the command line."""

import sys

from tracebridge.cli import main

sys.exit(main())
