"""deploy_challenger and settle_deployment: one rollout at a time, one end, and the last known good when it fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.builders import gate_report, write
from tests.fakes import FakeServing, every_fault, make_ports
from winnow import layout
from winnow.aws import settings
from winnow.errors import ConfigError, Conflict, NotFound, Retryable
from winnow.steps import deploy_challenger as deploying
from winnow.steps.deploy_challenger import deploy_challenger
from winnow.steps.settle_deployment import settle_deployment

LOOP = "rollout: {bake_minutes: 30, termination_minutes: 5, canary_percent: 10, max_quality_drop: 0.15}"


def register(ports: Any, model: str, *, champion: str = "bootstrap-text", dataset: str = "d1", **report: Any) -> None:
    write(ports, layout.gate_report(model), gate_report(model, champion=champion, dataset=dataset, **report))
    ports.registry._fake.register(model, artifact="s3://x", report_key="r", properties={})


def first(loop: str = LOOP, **overrides: Any) -> Any:
    """m1 passed the gate; nothing was ever deployed."""
    ports = make_ports(loop=loop, **overrides)
    register(ports, "m1")
    return ports


def deploy(ports: Any, model: str = "m1", dataset: str = "d1") -> dict[str, Any]:
    return dict(deploy_challenger({"model": model, "dataset": dataset}, ports).body)


def settle(ports: Any, model: str = "m1") -> dict[str, Any]:
    return dict(settle_deployment({"model": model}, ports).body)


def promoted() -> Any:
    """m1 is champion and serves; m2 passed the gate against it."""
    ports = first()
    deploy(ports)
    ports.serving.finish()
    settle(ports)
    register(ports, "m2", champion="m1", dataset="d2")
    return ports


def rolling() -> Any:
    """m2 is being rolled out over m1."""
    ports = promoted()
    deploy(ports, "m2", "d2")
    return ports


def baked() -> Any:
    ports = rolling()
    ports.serving.finish()
    return ports


def rolled_back() -> Any:
    ports = rolling()
    ports.alarms.trip("winnow-m2-quality")
    ports.serving.roll_back("alarm winnow-m2-quality was in ALARM state")
    return ports


def test_the_first_deployment_creates_the_endpoint() -> None:
    ports = first()

    assert deploy(ports) == {"model": "m1", "status": "STARTED", "wait_seconds": 60}

    assert ports.serving.configs == {"m1": ports.data.uri("training-output/winnow-m1/output/model.tar.gz")}
    assert ports.serving.rollouts == [("m1", None)]
    assert ports.table.items["DEPLOYMENT", "m1"]["status"] == "STARTED"


def test_a_later_deployment_is_a_canary_under_its_own_alarms() -> None:
    ports = rolling()

    model, rollout = ports.serving.rollouts[-1]

    assert (model, rollout.canary_percent, rollout.wait_seconds, rollout.termination_wait_seconds) == (
        "m2",
        10,
        1800,
        300,
    )
    assert rollout.alarms == ("winnow-m2-errors", "winnow-m2-latency", "winnow-m2-quality")
    errors, latency, quality = (ports.alarms.alarms[name] for name in rollout.alarms)
    assert errors.dimensions == {
        "EndpointName": "winnow", "VariantName": "AllTraffic", "EndpointConfigName": "winnow-m2",
    }  # fmt: skip
    assert (errors.metric, errors.statistic, errors.threshold) == ("Invocation5XXErrors", "Average", 0.05)
    assert (latency.metric, latency.statistic, latency.threshold) == ("ModelLatency", "p90", 2_000_000.0)
    assert quality.dimensions == {"Stack": "winnow", "Model": "m2"}
    assert (quality.metric, quality.comparison) == ("ServedCorrect", "LessThanThreshold")
    assert quality.threshold == pytest.approx(65.0)  # the gate's low bound 0.80 less 0.15, in percent
    assert (quality.min_samples, errors.min_samples) == (5, 1)
    assert quality.period == 300  # 30 minutes of baking hold more than five of them


def test_the_variant_is_the_one_the_adapter_creates() -> None:
    assert deploying.VARIANT == settings.VARIANT


@pytest.mark.parametrize(("minutes", "seconds"), [(0, 60), (4, 60), (10, 120), (60, 300)])
def test_the_period_fits_the_bake(minutes: int, seconds: int) -> None:
    assert deploying._period(minutes) == seconds


def test_without_an_endpoint_the_challenger_is_promoted_at_once() -> None:
    ports = first(serving=FakeServing(enabled=False))

    assert deploy(ports) == {"model": "m1", "status": "STARTED", "wait_seconds": 0}
    assert settle(ports)["status"] == "PROMOTED"

    assert ports.data.json(layout.CHAMPION)["model"] == "m1"
    assert ports.data.json(layout.deployment_report("m1"))["endpoint"] is None


@pytest.mark.parametrize("verdict", ["reject", "inconclusive"])
def test_what_the_gate_does_not_support_is_refused(verdict: str) -> None:
    ports = make_ports()
    register(ports, "m1", verdict=verdict)

    with pytest.raises(ConfigError, match=f"says {verdict}"):
        deploy(ports)

    assert not ports.journal.of("serving")


def test_a_report_on_another_dataset_supports_nothing() -> None:
    with pytest.raises(ConfigError, match="does not support"):
        deploy(first(), dataset="d2")


def test_a_report_against_a_former_champion_is_stale() -> None:
    ports = promoted()
    register(ports, "m3", champion="bootstrap-text", dataset="d3")

    assert deploy(ports, "m3", "d3")["status"] == "STALE"
    assert deploy(ports, "m3", "d3")["status"] == "STALE"

    assert ports.serving.endpoint.model == "m1"
    assert "m1 is the champion now" in ports.registry.packages["m3"]["reason"]
    assert ("LEASE", "deployment") not in ports.table.items


def test_rollouts_wait_for_each_other() -> None:
    ports = rolling()
    register(ports, "m3", champion="m1", dataset="d3")

    with pytest.raises(Retryable, match="another rollout"):
        deploy(ports, "m3", "d3")

    ports.serving.finish()
    assert settle(ports, "m2")["status"] == "PROMOTED"
    assert deploy(ports, "m3", "d3")["status"] == "STALE"


def test_a_dead_owner_loses_the_lease() -> None:
    ports = promoted()
    ports.table.acquire_lease("deployment", "m9", now=ports.clock.now(), seconds=1800)
    ports.clock.advance(minutes=31)

    assert deploy(ports, "m2", "d2")["status"] == "STARTED"


@pytest.mark.parametrize("status", ["Updating", "SystemUpdating", "RollingBack"])
def test_an_endpoint_that_moves_is_waited_for(status: str) -> None:
    ports = promoted()
    ports.serving.fail("", status=status)

    with pytest.raises(Retryable, match=status):
        deploy(ports, "m2", "d2")


def test_an_endpoint_that_cannot_be_updated_needs_a_person() -> None:
    ports = promoted()
    ports.serving.fail("no capacity")

    with pytest.raises(ConfigError, match=r"Failed \(no capacity\); delete it"):
        deploy(ports, "m2", "d2")


def test_an_update_whose_answer_was_lost_is_not_started_twice() -> None:
    ports = promoted()
    ports.journal.fail(len(_calls(promoted, lambda each: deploy(each, "m2", "d2"), until="serving.update")), "after")
    with pytest.raises(Exception, match="after"):
        deploy(ports, "m2", "d2")

    assert deploy(ports, "m2", "d2") == {"model": "m2", "status": "STARTED", "wait_seconds": 60}

    assert [model for model, _ in ports.serving.rollouts] == ["m1", "m2"]


def _calls(build: Callable[[], Any], act: Callable[[Any], Any], *, until: str) -> list[str]:
    """Names of the port calls `act` makes before the one named."""
    ports = build()
    start = len(ports.journal.calls)
    act(ports)
    names = [str(call) for call in ports.journal.calls[start:]]
    return names[: names.index(until)]


def test_a_rollout_is_watched_until_it_ends() -> None:
    ports = rolling()

    assert settle(ports, "m2") == {"model": "m2", "status": "IN_PROGRESS", "wait_seconds": 60}

    assert ports.table.items["LEASE", "deployment"]["owner"] == "m2"
    assert ports.data.json(layout.CHAMPION)["model"] == "m1"


def test_a_promotion_is_true_everywhere() -> None:
    ports = baked()
    ports.executions.start("rescore", "m0", {"model": "m0"})

    assert settle(ports, "m2")["status"] == "PROMOTED"

    champion = ports.data.json(layout.CHAMPION)
    assert (champion["model"], champion["number"], champion["previous"], champion["dataset"]) == ("m2", 2, "m1", "d2")
    assert ports.registry.packages["m2"]["status"] == "Approved"
    assert not [name for name in ports.alarms.alarms if "m2" in name]
    assert ports.executions.started["rescore", "m2"] == {"model": "m2"}
    assert ports.executions.running("rescore") == ["m2"]
    assert set(ports.serving.configs) == {"m1", "m2"}  # m1 is the last known good
    assert ports.table.items["DEPLOYMENT", "m2"]["status"] == "PROMOTED"
    assert ("LEASE", "deployment") not in ports.table.items


def test_the_config_before_the_last_known_good_is_retired() -> None:
    ports = baked()
    settle(ports, "m2")
    register(ports, "m3", champion="m2", dataset="d3")
    deploy(ports, "m3", "d3")
    ports.serving.finish()

    settle(ports, "m3")

    assert set(ports.serving.configs) == {"m2", "m3"}


def test_in_service_with_the_old_config_is_a_failure() -> None:
    ports = rolled_back()

    outcome = settle_deployment({"model": "m2"}, ports)

    assert outcome.body["status"] == "FAILED"
    assert outcome.metrics[0].dimensions == {"Outcome": "FAILED"}
    report = ports.data.json(layout.deployment_report("m2"))
    assert report["alarms"]["winnow-m2-quality"] == "ALARM"  # recorded before it was removed
    assert "winnow-m2-quality was in ALARM" in report["reason"]
    assert report["endpoint"]["model"] == "m1"
    assert not ports.alarms.alarms
    assert ports.data.json(layout.CHAMPION)["model"] == "m1"
    assert ports.registry.packages["m2"]["status"] == "Rejected"
    assert set(ports.serving.configs) == {"m1"}
    assert deploy(ports, "m2", "d2")["status"] == "FAILED"


@pytest.mark.parametrize("status", ["Failed", "UpdateRollbackFailed", "OutOfService"])
def test_an_endpoint_that_broke_is_a_failure_and_keeps_its_configs(status: str) -> None:
    ports = rolling()
    ports.serving.fail("no capacity", status=status)

    assert settle(ports, "m2")["status"] == "FAILED"

    assert set(ports.serving.configs) == {"m1", "m2"}
    assert ports.data.json(layout.CHAMPION)["model"] == "m1"


def test_an_endpoint_that_vanished_is_a_failure() -> None:
    ports = rolling()
    ports.serving._fake.endpoint = None

    assert settle(ports, "m2")["status"] == "FAILED"


@pytest.mark.parametrize("world", [baked, rolled_back])
def test_a_repeat_says_the_same_and_changes_nothing(world: Callable[[], Any]) -> None:
    ports = world()
    once = settle(ports, "m2")
    objects, items = dict(ports.data.objects), dict(ports.table.items)
    ports.clock.advance(hours=1)

    assert settle(ports, "m2") == once

    assert (ports.data.objects, ports.table.items) == (objects, items)


def test_settling_what_was_never_started_is_an_error() -> None:
    with pytest.raises(NotFound, match="no rollout of model m1"):
        settle(first())


def test_a_champion_written_by_hand_is_not_overwritten() -> None:
    ports = baked()
    write(ports, layout.CHAMPION, {"format": 1, "model": "m7", "number": 9})

    with pytest.raises(Conflict, match="by hand"):
        settle(ports, "m2")


def test_a_lost_lease_is_retried() -> None:
    ports = rolling()
    ports.table.items["LEASE", "deployment"]["owner"] = "m9"

    with pytest.raises(Retryable):
        settle(ports, "m2")


@pytest.mark.parametrize(
    ("build", "act"),
    [
        pytest.param(first, deploy, id="first deployment"),
        pytest.param(promoted, lambda ports: deploy(ports, "m2", "d2"), id="canary"),
        pytest.param(baked, lambda ports: settle(ports, "m2"), id="promotion"),
        pytest.param(rolled_back, lambda ports: settle(ports, "m2"), id="rollback"),
    ],
)
def test_every_fault_ends_where_an_undisturbed_run_ends(build: Callable[[], Any], act: Callable[[Any], Any]) -> None:
    expected = build()
    act(expected)

    for what, ports in every_fault(build, act):
        assert ports.data.objects == expected.data.objects, what
        assert ports.table.items == expected.table.items, what
        assert ports.registry.packages == expected.registry.packages, what
        assert ports.alarms.alarms == expected.alarms.alarms, what
        assert ports.serving.configs == expected.serving.configs, what
        assert ports.serving.endpoint == expected.serving.endpoint, what
        assert ports.serving.rollouts == expected.serving.rollouts, what
        assert ports.executions.statuses == expected.executions.statuses, what


def test_the_quality_alarm_of_a_regression_watches_the_share_within_the_tolerance() -> None:
    report = gate_report("m1")
    report["challenger"] = {
        "metric": "r2",
        "value": 0.8,
        "low": 0.7,
        "high": 0.9,
        "correct": {"value": 0.5, "low": 0.4, "high": 0.6},
    }
    ports = make_ports(loop=LOOP)

    alarms = {alarm.suffix: alarm for alarm in deploying.alarms(
        "m1", report=report, policy=ports.loop.rollout, stack="winnow"
    )}  # fmt: skip

    assert alarms["quality"].metric == "ServedCorrect"
    assert alarms["quality"].threshold == pytest.approx(100 * (0.4 - 0.15))
