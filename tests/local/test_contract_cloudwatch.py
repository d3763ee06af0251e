"""CloudWatch in the local cloud: statistics and alarms; each test names the AWS behaviour."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.local.test_contract_events import bodies, caught
from winnow_local.cloud import LocalCloud

ALARM = {
    "Namespace": "N", "MetricName": "M", "Statistic": "Sum", "Period": 60, "EvaluationPeriods": 1, "Threshold": 5.0,
    "ComparisonOperator": "GreaterThanThreshold", "TreatMissingData": "notBreaching",
}  # fmt: skip


def put(cloud: LocalCloud, *values: float, name: str = "M", **dims: str) -> None:
    for value in values:
        cloud.cloudwatch.record("N", name, dims, value)


def alarm(cloud: LocalCloud, name: str = "a", **more: Any) -> None:
    cloud.client("cloudwatch").put_metric_alarm(AlarmName=name, **{**ALARM, **more})


def state(cloud: LocalCloud, name: str = "a") -> str:
    found = cloud.client("cloudwatch").describe_alarms(AlarmNames=[name])
    return str((found["MetricAlarms"] + found["CompositeAlarms"])[0]["StateValue"])


def minutes(cloud: LocalCloud, count: float) -> None:
    cloud.advance(hours=count / 60)


def test_series_are_kept_apart_by_their_exact_dimensions_and_listed_once(empty: LocalCloud) -> None:
    alarm(empty, "all")
    alarm(empty, "one", Dimensions=[{"Name": "Stack", "Value": "s"}])
    put(empty, 9, 9, Stack="s")
    put(empty, 9, 9, Stack="s", Arm="active")
    put(empty, 1, 1)
    minutes(empty, 1)

    listed = empty.client("cloudwatch").list_metrics(Namespace="N")["Metrics"]

    assert (state(empty, "all"), state(empty, "one")) == ("OK", "ALARM")
    assert sorted(len(metric["Dimensions"]) for metric in listed) == [0, 1, 2]


def test_what_is_not_simulated_is_refused(empty: LocalCloud) -> None:
    stat = {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": "Sum"}
    queries = [{"Id": "a", "MetricStat": stat, "ReturnData": False}, {"Id": "b", "Expression": "FILL(a, 0)"}]
    plain = {key: ALARM[key] for key in ("EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData")}
    cloudwatch = empty.client("cloudwatch")

    with pytest.raises(NotImplementedError, match="FILL"):
        cloudwatch.put_metric_alarm(AlarmName="a", **plain, Metrics=queries)
    with pytest.raises(NotImplementedError, match="missing data as ignore"):
        alarm(empty, TreatMissingData="ignore")
    with pytest.raises(NotImplementedError, match="AND NOT"):
        cloudwatch.put_composite_alarm(AlarmName="b", AlarmRule='ALARM("a") AND NOT ALARM("b")')
    window = {"StartTime": empty.clock.now(), "EndTime": empty.clock.now()}
    with pytest.raises(NotImplementedError, match="GetMetricData"):
        cloudwatch.get_metric_data(MetricDataQueries=queries, **window)
    with pytest.raises(NotImplementedError, match="GetMetricStatistics"):
        cloudwatch.get_metric_statistics(Namespace="N", MetricName="M", Period=60, Statistics=["Sum"], **window)
    with pytest.raises(NotImplementedError, match="PutMetricData"):
        cloudwatch.put_metric_data(Namespace="N", MetricData=[{"MetricName": "M", "Value": 1}])


def test_an_alarm_on_a_guarded_metric_needs_enough_values(empty: LocalCloud) -> None:
    stats = {"measured": "Average", "samples": "SampleCount"}
    queries: list[dict[str, Any]] = [
        {"Id": i, "ReturnData": False,
         "MetricStat": {"Metric": {"Namespace": "N", "MetricName": "M"}, "Period": 60, "Stat": stat}}
        for i, stat in stats.items()
    ]  # fmt: skip
    queries.append({"Id": "judged", "Expression": "IF(samples >= 3, measured, 5.0)"})
    plain = {key: ALARM[key] for key in ("EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData")}
    empty.client("cloudwatch").put_metric_alarm(AlarmName="a", **plain, Metrics=queries)
    seen = []
    for count in (2, 3):
        put(empty, *[9] * count)
        minutes(empty, 1)
        seen.append(state(empty))

    assert seen == ["OK", "ALARM"]


def test_an_alarm_starts_without_data_breaches_and_recovers_when_the_data_is_gone(empty: LocalCloud) -> None:
    alarm(empty)
    seen = [state(empty)]
    for value in (3, 9, None, None):
        if value is not None:
            put(empty, value)
        minutes(empty, 1)
        seen.append(state(empty))

    assert seen == ["INSUFFICIENT_DATA", "OK", "ALARM", "OK", "OK"]


def test_m_of_n_datapoints(empty: LocalCloud) -> None:
    alarm(empty, EvaluationPeriods=3, DatapointsToAlarm=2)
    seen = []
    for value in (9, 1, 9, 1, 1):
        put(empty, value)
        minutes(empty, 1)
        seen.append(state(empty))

    assert seen == ["OK", "OK", "ALARM", "OK", "OK"]


@pytest.mark.parametrize(
    ("missing", "after"),
    [("breaching", "ALARM"), ("notBreaching", "OK")],
)
def test_missing_data(empty: LocalCloud, missing: str, after: str) -> None:
    alarm(empty, TreatMissingData=missing, Period=3600, EvaluationPeriods=2)
    put(empty, 1)
    minutes(empty, 1)

    empty.advance(days=1)

    assert state(empty) == after


def test_a_heartbeat_alarm_goes_off_after_silence_and_recovers(empty: LocalCloud) -> None:
    told = caught(empty, {"source": ["aws.cloudwatch"]})
    rule = {"TreatMissingData": "breaching", "Threshold": 1.0, "ComparisonOperator": "LessThanThreshold"}
    alarm(empty, Period=3600, EvaluationPeriods=3, **rule)
    for hour in range(24):
        if not 6 <= hour < 12:
            put(empty, 1)
        empty.advance(hours=1)

    states = [event["detail"]["state"]["value"] for event in bodies(empty, told)]
    assert states == ["OK", "ALARM", "OK"]


def test_percentile_alarms(empty: LocalCloud) -> None:
    given = {key: value for key, value in ALARM.items() if key != "Statistic"}
    empty.client("cloudwatch").put_metric_alarm(AlarmName="a", **given, ExtendedStatistic="p90")
    put(empty, *[1] * 85, *[100] * 15)

    minutes(empty, 1)

    assert state(empty) == "ALARM"


def test_a_new_state_tells_eventbridge_and_the_topic(fixture_cloud: LocalCloud) -> None:
    cloud = fixture_cloud
    told = caught(
        cloud, {"source": ["aws.cloudwatch"], "detail": {"alarmName": ["fix-errors"], "state": {"value": ["ALARM"]}}}
    )
    cloud.invoke("fix-fail", {})
    minutes(cloud, 6)

    (event,) = bodies(cloud, told)
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    assert event["detail"]["previousState"]["value"] in ("OK", "INSUFFICIENT_DATA")
    assert state(cloud, "fix-any") == "OK"  # the errors are over, and so is the composite alarm that named them
    paged = bodies(cloud, cloud.client("sqs").get_queue_url(QueueName="fix-pages")["QueueUrl"])
    assert [json.loads(page["Message"])["NewStateValue"] for page in paged] == ["ALARM"]


def test_dead_letters_raise_the_alarm_of_their_queue(fixture_cloud: LocalCloud) -> None:
    url = fixture_cloud.client("sqs").get_queue_url(QueueName="fix-dead")["QueueUrl"]
    assert state(fixture_cloud, "fix-dead") == "INSUFFICIENT_DATA"

    fixture_cloud.client("sqs").send_message(QueueUrl=url, MessageBody="x")
    minutes(fixture_cloud, 3)
    during = state(fixture_cloud, "fix-dead")
    fixture_cloud.advance(days=2)
    later = state(fixture_cloud, "fix-dead")
    fixture_cloud.client("sqs").purge_queue(QueueUrl=url)
    handle = fixture_cloud.client("sqs").receive_message(QueueUrl=url)
    fixture_cloud.advance(hours=2)

    assert (during, later, handle.get("Messages"), state(fixture_cloud, "fix-dead")) == ("ALARM", "ALARM", None, "OK")


def test_the_age_of_the_oldest_message_grows_by_itself(empty: LocalCloud) -> None:
    url = empty.client("sqs").create_queue(QueueName="old")["QueueUrl"]
    metric = {"Namespace": "AWS/SQS", "MetricName": "ApproximateAgeOfOldestMessage", "Statistic": "Maximum"}
    alarm(empty, **metric, Dimensions=[{"Name": "QueueName", "Value": "old"}], Threshold=3600.0, Period=300)

    empty.client("sqs").send_message(QueueUrl=url, MessageBody="x")
    minutes(empty, 55)
    before = state(empty)
    minutes(empty, 10)

    assert (before, state(empty)) == ("OK", "ALARM")


def test_a_composite_alarm_follows_its_children_and_its_suppressor_holds_its_actions_back(empty: LocalCloud) -> None:
    topic = empty.client("sns").create_topic(Name="t")["TopicArn"]
    url = empty.client("sqs").create_queue(QueueName="told")["QueueUrl"]
    arn = empty.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    empty.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    alarm(empty, "child")
    alarm(empty, "rollout-errors", MetricName="E")
    alarm(empty, "rollout", MetricName="R", Period=3600)
    empty.client("cloudwatch").put_composite_alarm(
        AlarmName="both", AlarmRule='ALARM("child") OR ALARM("rollout-errors")', AlarmActions=[topic],
        ActionsSuppressor="rollout", ActionsSuppressorWaitPeriod=60, ActionsSuppressorExtensionPeriod=300,
    )  # fmt: skip
    put(empty, 9, name="R")
    minutes(empty, 2)

    put(empty, 9)
    minutes(empty, 1)
    during = state(empty, "both"), state(empty, "rollout")
    minutes(empty, 90)
    suppressed = len(bodies(empty, url)), state(empty, "rollout")
    put(empty, 9)
    put(empty, 9, name="E")
    minutes(empty, 3)

    assert during == ("ALARM", "ALARM")
    assert suppressed == (0, "OK")
    assert len(bodies(empty, url)) == 1


def test_set_alarm_state_runs_the_actions(empty: LocalCloud) -> None:
    told = caught(empty, {"source": ["aws.cloudwatch"]})
    alarm(empty)

    empty.client("cloudwatch").set_alarm_state(AlarmName="a", StateValue="ALARM", StateReason="test")
    empty.run_until_idle()

    assert [event["detail"]["state"]["value"] for event in bodies(empty, told)] == ["ALARM"]


def test_silence_costs_no_evaluations(fixture_cloud: LocalCloud) -> None:
    looks: list[str] = []
    look = fixture_cloud.cloudwatch.evaluate
    fixture_cloud.cloudwatch.evaluate = lambda names: (looks.extend(names), look(names))  # type: ignore[assignment, func-returns-value]

    fixture_cloud.advance(days=7)

    assert len(looks) < 7 * 24 * 3
