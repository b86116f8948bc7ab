"""`python -m prunebench` is the command line."""

import sys

from prunebench.cli import main

sys.exit(main())
