"""``python -m lightning_camrobust`` is the console command ``camrobust``."""

import sys

from lightning_camrobust.cli import main

if __name__ == "__main__":
    sys.exit(main())
