"""What the one-file build runs first: it says what is missing on this machine."""

import importlib.util
import sys

if importlib.util.find_spec("cryptography") is None:
    sys.stderr.write("tallystick-verify needs the Python package cryptography: python3 -m pip install cryptography\n")
    sys.exit(2)

from tallystick_verify.cli import main

sys.exit(main())
