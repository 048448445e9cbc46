"""`python -m kubesae_operator`."""

import sys

from kubesae_operator.main import main

sys.exit(main())
