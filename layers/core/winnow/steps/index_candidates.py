"""Hop 3: candidate messages become compact shards that selection reads, with one table row a shard."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from winnow import layout
from winnow.digests import digest
from winnow.errors import BadInput
from winnow.metrics import Metric
from winnow.ports import Ports
from winnow.steps import Outcome
from winnow.steps.candidates import Candidates


def index_candidates(messages: Sequence[Mapping[str, Any]], ports: Ports) -> Outcome:
    """One shard a model from all messages at once. Messages that cannot be read are named by place in `failed`."""
    by_model: dict[str, dict[str, Candidates]] = {}
    failed: list[int] = []
    for place, message in enumerate(messages):
        try:
            columns = base64.b64decode(message["columns"], validate=True)
            by_model.setdefault(str(message["model"]), {})[digest(columns)] = Candidates.from_bytes(columns)
        except (KeyError, TypeError, binascii.Error, BadInput):
            failed.append(place)
    indexed = 0
    for model, parts in by_model.items():
        names = sorted(parts)
        name = digest(names)
        shard = Candidates.concat([parts[part] for part in names])
        key = layout.candidates(model, name)
        ports.data.put(key, shard.to_bytes())
        ports.table.put(f"SHARD#{model}", name, {"key": key, "rows": len(shard)})
        indexed += len(shard)
    return Outcome({"indexed": indexed, "failed": failed}, (Metric("CandidatesIndexed", indexed),))
