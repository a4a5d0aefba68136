"""Test modules share helpers.py; pytest's importlib mode puts nothing on the path by itself."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
