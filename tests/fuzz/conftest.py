"""Small models of tests/export/ and sentences of tests/install/ serve here too."""

import sys
from pathlib import Path

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("export", "install")]
