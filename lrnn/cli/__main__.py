"""`python -m lrnn.cli` is `lrnn`."""

import sys

from lrnn.cli import main

sys.exit(main())
