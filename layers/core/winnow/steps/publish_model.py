"""Turns what a training job left into a published, registered model package, or says why it is not one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from winnow import layout
from winnow.errors import BadModel
from winnow.metrics import Metric
from winnow.models.package import ModelCard
from winnow.ports import Ports
from winnow.steps import Outcome
from winnow.steps.documents import document


def publish_model(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"model", "artifact"}` → `{"model"}`: the package is validated, published and registered, pending approval.

    Raises BadModel when the package breaks its contract or is not the model that was ordered; the reason is kept in
    `reports/<model>/publish.json`, and `plan_training` will not order that model again.
    """
    model, artifact = str(request["model"]), str(request["artifact"])
    spec = document(ports.data, layout.training_spec(model))
    first = not ports.data.exists(layout.model(model))
    try:
        card = ports.models.publish(model, artifact=artifact)
        _is_what_was_ordered(card, spec)
    except BadModel as error:
        report = {
            "format": 1, "model": model, "artifact": artifact, "code": error.code, "reason": str(error),
            "at": ports.clock.now().isoformat(),
        }  # fmt: skip
        ports.data.put_new(layout.publish_report(model), json.dumps(report, indent=1, ensure_ascii=False).encode())
        raise
    properties = {"dataset": str(spec["dataset"]), "kind": card.kind, "masker": card.masker}
    ports.registry.register(model, artifact=artifact, report_key=layout.gate_report(model), properties=properties)
    return Outcome({"model": model}, (Metric("ModelsPublished", 1),) if first else ())


def _is_what_was_ordered(card: ModelCard, spec: Mapping[str, Any]) -> None:
    found = {
        "model": card.model, "task": card.task, "kind": card.kind, "classes": list(card.classes),
        "masker": card.masker, "dataset": card.dataset,
    }  # fmt: skip
    ordered = {"task": "classification", **spec}  # specs written before there were other tasks name none
    for name, value in found.items():
        if value != ordered[name]:
            message = f"model.json says {name} is {value!r}, the training was ordered with {ordered[name]!r}"
            raise BadModel(message, code="other-model")
    found_encoder, wanted = None if card.encoder is None else card.encoder.digest, spec.get("encoder")
    if found_encoder != wanted and "imported" not in spec:  # a model made elsewhere brings its own
        message = f"model.json carries encoder {found_encoder}, the training was ordered with {wanted}"
        raise BadModel(message, code="other-model")
