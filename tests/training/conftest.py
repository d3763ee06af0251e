"""The trainer's modules import one another by plain names, as they lie side by side in the container."""

from __future__ import annotations

import sys
from pathlib import Path

TRAINING = Path(__file__).resolve().parents[2] / "training"

sys.path.insert(0, str(TRAINING))
