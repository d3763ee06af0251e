"""Looks at a rollout until it has ended, and makes the end true everywhere: new champion, or last known good kept (I7)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from winnow import layout
from winnow.errors import Conflict, NotFound
from winnow.metrics import Metric
from winnow.ports import EndpointState, Ports
from winnow.steps import Outcome, deployment, pointers
from winnow.steps.deployment import Deployment
from winnow.steps.documents import document
from winnow.steps.pointers import Champion

JsonDict = dict[str, Any]


def settle_deployment(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"model"}` → `{"model", "status", "wait_seconds"}`, status `IN_PROGRESS`, `PROMOTED` or `FAILED`.

    The verdict is reached once: `reports/<model>/deployment.json` is written first and never changed, and every write
    after it may be repeated, so a run that dies half way is completed by the next.
    """
    model = str(request["model"])
    known = deployment.find(model, ports)
    if known is None or known.status == deployment.STARTING:
        raise NotFound(f"no rollout of model {model} was started; deploy_challenger starts it")
    if known.status in deployment.FINAL:
        ports.table.release_lease(deployment.LEASE, model)
        return Outcome({"model": model, "status": known.status, "wait_seconds": 0})
    deployment.hold(model, ports)
    report = _report(known, ports)
    if report is None:
        return Outcome({"model": model, "status": "IN_PROGRESS", "wait_seconds": deployment.WAIT_SECONDS})
    if report["status"] == deployment.PROMOTED:
        _promote(known, report, ports)
    else:
        _reject(known, report, ports)
    replace(known, status=report["status"], at=report["at"]).save(ports)
    ports.table.release_lease(deployment.LEASE, model)
    return Outcome(
        {"model": model, "status": report["status"], "wait_seconds": 0},
        (Metric("DeploymentsSettled", 1, {"Outcome": report["status"]}),),
    )


def _report(known: Deployment, ports: Ports) -> JsonDict | None:
    """How the rollout ended; None while it goes on."""
    key = layout.deployment_report(known.model)
    try:
        written: JsonDict = document(ports.data, key)
        return written
    except NotFound:
        pass
    state = ports.serving.state() if ports.serving.enabled() else EndpointState("InService", known.model)
    if state is not None and state.status in deployment.MOVING:
        return None
    failure = _failure(known.model, state)
    report = {
        "format": 1,
        "model": known.model,
        "dataset": known.dataset,
        "champion": known.champion,
        "status": deployment.FAILED if failure else deployment.PROMOTED,
        "reason": failure or "the endpoint serves it and no alarm objected",
        "endpoint": None if state is None or not ports.serving.enabled() else dict(state.__dict__),
        "alarms": dict(ports.alarms.states(known.alarms)),
        "started_at": known.at,
        "at": ports.clock.now().isoformat(),
    }
    body = json.dumps(report, indent=1, ensure_ascii=False).encode()
    if not ports.data.put_new(key, body):
        report = document(ports.data, key)
    return report


def _failure(model: str, state: EndpointState | None) -> str | None:
    """Why the rollout failed. InService alone proves nothing: after a rollback the old config is in service again."""
    if state is None:
        return "the endpoint does not exist"
    if state.status == "InService" and state.model == model:
        return None
    where = f"the endpoint is {state.status} with model {state.model}"
    return f"{where}: {state.failure}" if state.failure else where


def _promote(known: Deployment, report: Mapping[str, Any], ports: Ports) -> None:
    _crown(known, report, ports)
    ports.registry.decide(known.model, approved=True, reason=report["reason"])
    ports.alarms.remove(known.model)
    for name in ports.executions.running("rescore"):
        if name != known.model:
            ports.executions.stop("rescore", name, cause=f"{known.model} is the champion now")
    ports.executions.start("rescore", known.model, {"model": known.model})
    predecessor = deployment.find(known.champion, ports)
    if predecessor is not None and not predecessor.champion.startswith(layout.BOOTSTRAP):
        # The one just replaced stays as the last known good; the one before it is of no more use.
        ports.serving.retire(predecessor.champion)


def _crown(known: Deployment, report: Mapping[str, Any], ports: Ports) -> None:
    champion, tag = pointers.champion(ports)
    if champion.model == known.model:
        return
    if champion.model != known.champion:
        raise Conflict(
            f"{champion.model} became champion while {known.model} was rolled out against {known.champion}; "
            "somebody wrote models/champion.json by hand: restore it, or deploy that model"
        )
    crowned = Champion(
        model=known.model,
        number=champion.number + 1,
        dataset=None if layout.imported_model(known.dataset) else known.dataset,
        artifact=ports.data.uri(layout.training_artifact(ports.stack, known.model)),
        previous=champion.model,
        promoted_at=report["at"],
    )
    ports.data.replace(layout.CHAMPION, crowned.to_bytes(), tag=tag)


def _reject(known: Deployment, report: Mapping[str, Any], ports: Ports) -> None:
    ports.registry.decide(known.model, approved=False, reason=report["reason"])
    ports.alarms.remove(known.model)
    endpoint = report["endpoint"]
    if endpoint and endpoint["status"] == "InService":
        ports.serving.retire(known.model)
