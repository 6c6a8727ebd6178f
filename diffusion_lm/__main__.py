"""`python -m diffusion_lm`, which `accelerate launch -m diffusion_lm train ...` needs."""

import sys

from diffusion_lm.cli import main

sys.exit(main())
