"""``python -m slalom.cli``."""

import sys

from slalom.cli import main

sys.exit(main())
