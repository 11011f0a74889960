"""Where the real images and networks are that some benchmarks need."""

import os
from pathlib import Path

DATA = Path(os.environ.get("TILE_INFER_TEST_DATA") or Path(__file__).parents[2] / "shared/data")
