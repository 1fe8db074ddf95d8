"""The metrics' names and texts, as people meet them in Prometheus."""

import re

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from mediad.metrics import Metrics


def families() -> list[Metric]:
    return list(Metrics().registry.collect())


def test_every_name_starts_with_mediad() -> None:
    for family in families():
        assert re.fullmatch(r"mediad_[a-z0-9_]+", family.name)


def test_every_metric_says_what_it_counts() -> None:
    for family in families():
        assert len(family.documentation.split()) >= 2, family.name


def test_histograms_are_in_seconds() -> None:
    histograms = [family.name for family in families() if family.type == "histogram"]
    assert histograms
    assert all(name.endswith("_seconds") for name in histograms)


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    one, other = Metrics(), Metrics()
    one.dtmf.inc()
    assert one.registry.get_sample_value("mediad_dtmf_digits_total") == 1
    assert other.registry.get_sample_value("mediad_dtmf_digits_total") == 0


def test_counts_appear_in_the_text_format() -> None:
    metrics = Metrics()
    metrics.calls_ended.labels("caller", "normal_clearing").inc()
    text = generate_latest(metrics.registry).decode()
    assert 'mediad_calls_ended_total{by="caller",cause="normal_clearing"} 1.0' in text
