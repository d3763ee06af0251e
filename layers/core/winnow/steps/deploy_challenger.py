"""Starts the rollout of a challenger that the gate let pass, guarded by alarms of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from winnow import layout
from winnow.errors import ConfigError, Retryable
from winnow.loop import RolloutPolicy
from winnow.metrics import NAMESPACE, Metric
from winnow.ports import DeploymentAlarm, EndpointState, Ports, Rollout
from winnow.steps import Outcome, deployment, pointers
from winnow.steps.deployment import Deployment
from winnow.steps.documents import document

VARIANT = "AllTraffic"
"""The endpoint's one variant; an update must keep its name."""

JsonDict = dict[str, Any]


def deploy_challenger(request: Mapping[str, Any], ports: Ports) -> Outcome:
    """`{"model", "dataset"}` → `{"model", "status", "wait_seconds"}`.

    `STARTED`: look again after `wait_seconds`. `STALE`: the champion it was compared with is no longer the champion, so the
    gate's report supports nothing. `PROMOTED`, `FAILED`: an earlier run of this rollout ended that way.

    Raises ConfigError when the gate did not say promote (I6), Retryable while another rollout is under way.
    """
    model, dataset = str(request["model"]), str(request["dataset"])
    report = _supporting_report(model, dataset, ports)
    known = deployment.find(model, ports)
    if known is not None and known.status in deployment.FINAL:
        return _answer(model, known.status)
    deployment.hold(model, ports)
    champion, _ = pointers.champion(ports)
    now = ports.clock.now().isoformat()
    if champion.model not in (report["champion"], model):
        reason = f"compared with {report['champion']}, but {champion.model} is the champion now"
        ports.registry.decide(model, approved=False, reason=reason)
        Deployment(model, dataset, deployment.STALE, report["champion"], now).save(ports)
        ports.table.release_lease(deployment.LEASE, model)
        return _answer(model, deployment.STALE)
    if known is not None and known.status == deployment.STARTED:
        return _answer(model, deployment.STARTED, wait_seconds=deployment.WAIT_SECONDS)
    start = Deployment(model, dataset, deployment.STARTING, report["champion"], now)
    wait, guards = _roll_out(start, report, ports, resumed=known is not None) if ports.serving.enabled() else (0, ())
    replace(start, status=deployment.STARTED, alarms=guards).save(ports)
    body = {"model": model, "status": deployment.STARTED, "wait_seconds": wait}
    return Outcome(body, (Metric("DeploymentsStarted", 1),))


def _supporting_report(model: str, dataset: str, ports: Ports) -> JsonDict:
    report: JsonDict = document(ports.data, layout.gate_report(model))
    if (report["verdict"], report["model"], report["dataset"]) != ("promote", model, dataset):
        raise ConfigError(
            f"{layout.gate_report(model)} says {report['verdict']} for model {report['model']} on {report['dataset']}; "
            f"it does not support deploying {model} on {dataset}"
        )
    return report


def _roll_out(
    start: Deployment, report: Mapping[str, Any], ports: Ports, *, resumed: bool
) -> tuple[int, tuple[str, ...]]:
    """Set the endpoint moving; returns the seconds until a first look and the alarms on guard."""
    model = start.model
    state = ports.serving.state()
    if state is not None and _is_ours(state, model, resumed=resumed):
        names = ports.alarms.put(model, alarms(model, report=report, policy=ports.loop.rollout, stack=ports.stack))
        return (0 if state.status == "InService" else deployment.WAIT_SECONDS), names
    _must_accept_updates(state)
    start.save(ports)
    ports.serving.prepare(model, artifact=ports.data.uri(layout.training_artifact(ports.stack, model)))
    names = ports.alarms.put(model, alarms(model, report=report, policy=ports.loop.rollout, stack=ports.stack))
    if state is None:
        ports.serving.create(model)
    else:
        ports.serving.update(model, rollout=rollout(ports.loop.rollout, alarms=names))
    return deployment.WAIT_SECONDS, names


def _is_ours(state: EndpointState, model: str, *, resumed: bool) -> bool:
    """Whether an earlier run of this step set this operation going (or it is over already).

    SageMaker may not name the pending config at once; an endpoint that updates while we hold the lease and had written
    down that we were starting is ours.
    """
    return (
        state.pending == model or state.model == model or (resumed and state.status == "Updating" and not state.pending)
    )


def _must_accept_updates(state: EndpointState | None) -> None:
    if state is None or state.status == "InService":
        return
    if state.status in deployment.MOVING:
        raise Retryable(f"the endpoint is {state.status}; an update has to wait until it is InService")
    raise ConfigError(
        f"the endpoint is {state.status} ({state.failure or 'no reason given'}); delete it with 'aws sagemaker delete-endpoint', "
        "and the next deployment creates it anew"
    )


def rollout(policy: RolloutPolicy, *, alarms: Sequence[str]) -> Rollout:
    """How traffic moves, from loop.yaml."""
    return Rollout(
        canary_percent=policy.canary_percent,
        wait_seconds=policy.bake_minutes * 60,
        termination_wait_seconds=policy.termination_minutes * 60,
        alarms=tuple(alarms),
    )


def alarms(model: str, *, report: Mapping[str, Any], policy: RolloutPolicy, stack: str) -> tuple[DeploymentAlarm, ...]:
    """What sends this challenger back: failing, slow, or less often right than the gate had reason to expect.

    The first two carry the new config's dimension: the old fleet's troubles must not stop a good rollout. Served
    correctness carries the model's id. One bad period may be bad luck, so each wants two of three; judgements trickle
    in, so the quality alarm counts only periods with `min_feedback` of them. A number is right within `task.tolerance`,
    in the gate's report (`correct`) as in what is served.
    """
    period = _period(policy.bake_minutes)
    dimensions = {"EndpointName": stack, "VariantName": VARIANT, "EndpointConfigName": f"{stack}-{model}"}
    figures = report["challenger"] or {"low": 0.0}  # of an imported model nothing may be known
    # Reports written before other metrics than accuracy was known hold its bounds themselves.
    floor = max(0.0, float(figures.get("correct", figures)["low"]) - policy.max_quality_drop)
    return (
        DeploymentAlarm(
            suffix="errors", namespace="AWS/SageMaker", metric="Invocation5XXErrors", dimensions=dimensions,
            statistic="Average", threshold=policy.max_error_rate, comparison="GreaterThanThreshold",
            period=period, evaluation_periods=3, datapoints_to_alarm=2,
            description=f"{model}: more than {policy.max_error_rate:.0%} of its invocations fail",
        ),
        DeploymentAlarm(
            suffix="latency", namespace="AWS/SageMaker", metric="ModelLatency", dimensions=dimensions,
            statistic="p90", threshold=policy.max_latency_ms * 1000.0,  # ModelLatency is in microseconds
            comparison="GreaterThanThreshold",
            period=period, evaluation_periods=3, datapoints_to_alarm=2,
            description=f"{model}: its p90 latency is above {policy.max_latency_ms} ms",
        ),
        DeploymentAlarm(
            suffix="quality", namespace=NAMESPACE, metric="ServedCorrect", dimensions={"Stack": stack, "Model": model},
            statistic="Average", threshold=100.0 * floor, comparison="LessThanThreshold",
            period=period, evaluation_periods=3, datapoints_to_alarm=2, min_samples=policy.min_feedback,
            description=f"{model}: fewer than {floor:.0%} of its judged predictions are right",
        ),
    )  # fmt: skip


def _period(bake_minutes: int) -> int:
    """Seconds: the bake has room for five periods, so two bad ones are seen before it ends; whole minutes, at most 5."""
    return 60 * min(5, max(1, bake_minutes // 5))


def _answer(model: str, status: str, *, wait_seconds: int = 0) -> Outcome:
    return Outcome({"model": model, "status": status, "wait_seconds": wait_seconds})
