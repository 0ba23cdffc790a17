"""python -m shared.clinic"""

import sys

from shared.clinic.terminal import main

sys.exit(main())
