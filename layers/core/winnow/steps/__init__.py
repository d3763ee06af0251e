"""One module a hop: `(request, ports) -> Outcome`. A step reaches another hop only through what AWS carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from winnow.metrics import Metric


@dataclass(frozen=True)
class Outcome:
    """What a step did: the JSON body its caller gets, and the metrics the handler emits."""

    body: Mapping[str, Any]
    metrics: tuple[Metric, ...] = ()
