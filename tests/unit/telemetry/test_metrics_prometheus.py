"""/metrics: names and labels as the table says, bounded, and one for all workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobnimbus_mcp.telemetry.metrics_prometheus import SERIES_MAX, PrometheusRecorder
from jobnimbus_mcp.telemetry.names import METRICS, Metric


def samples(recorder: PrometheusRecorder) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text, content_type = recorder.exposition()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counts_observations_and_gauges_are_told_under_the_prefix() -> None:
    recorder = PrometheusRecorder()
    recorder.count("cache_reads", entity="jobs", status="hit", tier="l1")
    recorder.count("cache_reads", 2, entity="jobs", status="hit", tier="l1")
    recorder.observe("upstream_seconds", 0.2, entity="jobs")
    recorder.gauge("cache_l1_bytes", 512)
    told = samples(recorder)
    labels = (("entity", "jobs"), ("status", "hit"), ("tier", "l1"))
    assert told["jobnimbus_mcp_cache_reads_total", labels] == 3
    assert told["jobnimbus_mcp_upstream_seconds_count", (("entity", "jobs"),)] == 1
    assert told["jobnimbus_mcp_upstream_seconds_bucket", (("entity", "jobs"), ("le", "0.1"))] == 0
    assert told["jobnimbus_mcp_upstream_seconds_bucket", (("entity", "jobs"), ("le", "0.25"))] == 1
    assert told["jobnimbus_mcp_cache_l1_bytes", ()] == 512


def test_every_metric_of_the_table_can_be_recorded() -> None:
    recorder = PrometheusRecorder()
    for name, metric in METRICS.items():
        labels = dict.fromkeys(metric.labels, "x")
        record: Callable[..., None] = getattr(
            recorder, {"counter": "count", "histogram": "observe"}.get(metric.kind, "gauge")
        )
        record(name, 1, **labels)
    told = {name.removeprefix("jobnimbus_mcp_") for name, _ in samples(recorder)}
    assert all(any(one.startswith(name) for one in told) for name in METRICS)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("no_such_metric", {}),
        ("cache_reads", {}),
        ("cache_reads", {"entity": "jobs", "status": "hit"}),
        ("cache_reads", {"entity": "jobs", "status": "hit", "tier": "l1", "key": "k"}),
        ("cache_l1_bytes", {}),
    ],
)
def test_a_name_or_label_that_is_not_in_the_table_is_refused(name: str, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=name):
        PrometheusRecorder().count(name, 1, **labels)


def test_a_kind_that_does_not_exist_is_refused_when_built() -> None:
    with pytest.raises(ValueError, match="no such kind"):
        PrometheusRecorder({"odd": Metric("summary", (), "An odd one.")})


def test_a_label_out_of_bounds_cannot_fill_memory() -> None:
    recorder = PrometheusRecorder({"asked": Metric("counter", ("who",), "Asked.")})
    for number in range(SERIES_MAX + 500):
        recorder.count("asked", who=str(number))
    told = {key: value for key, value in samples(recorder).items() if key[0] == "jobnimbus_mcp_asked_total"}
    assert len(told) == SERIES_MAX + 1
    assert told["jobnimbus_mcp_asked_total", (("who", "overflow"),)] == 500


def test_two_recorders_do_not_share_a_registry() -> None:
    first, second = PrometheusRecorder(), PrometheusRecorder()
    first.gauge("cache_l1_bytes", 1)
    assert samples(second)["jobnimbus_mcp_cache_l1_bytes", ()] == 0


def test_one_worker_tells_the_sum_of_all_and_forgets_the_state_of_the_dead(tmp_path: Path) -> None:
    record = (
        "from jobnimbus_mcp.telemetry.metrics_prometheus import PrometheusRecorder\n"
        "r = PrometheusRecorder()\n"
        "r.count('cache_corrupt', entity='jobs')\n"
        "r.gauge('cache_l1_bytes', 100)\n"
        "r.gauge('breaker_state', 2, breaker='store')\n"
    )
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def run(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=True
        ).stdout

    run(record)
    run(record)
    told = run(record + "print(r.exposition()[0].decode())")
    assert 'jobnimbus_mcp_cache_corrupt_total{entity="jobs"} 3.0' in told
    assert "jobnimbus_mcp_cache_l1_bytes 100.0" in told
    assert 'jobnimbus_mcp_breaker_state{breaker="store"} 2.0' in told
