"""Makes the small inputs of the end-to-end tests importable: the pages' commands run on the same kind of model."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "end_to_end"))
