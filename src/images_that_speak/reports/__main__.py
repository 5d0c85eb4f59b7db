"""`python -m images_that_speak.reports gallery RUN_OR_SWEEP`; `--help` says what else there is."""

import sys

from .commands import main

sys.exit(main())
