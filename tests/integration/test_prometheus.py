"""A real Prometheus reads mediad's metrics, and config/prometheus/ says what it should."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mediad.wire.audiosocket import uuid_message
from tests import servers
from tests.integration.daemon import running as running_here
from tests.integration.daemon import settings
from tests.servers import Program, find_program

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config/prometheus"
ALERTS = CONFIG / "alerts.yml"
DEADLINE_S = 30.0

T = TypeVar("T")


class Mediad(NamedTuple):
    audiosocket: tuple[str, int]
    http: str


def wait_for(question: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + DEADLINE_S
    while (answer := question()) is None:
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)
    return answer


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        text: bytes = response.read()
        return text.decode()


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a program while the block lasts; it must then end cleanly by SIGTERM."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(10)
            finally:
                process.kill()
        assert status == 0, log.read_text()


@pytest.fixture
def mediad(tmp_path: Path) -> Iterator[Mediad]:
    """A mediad whose agent never answers, so that a call goes on while it tries."""
    log = tmp_path / "mediad.log"
    environment = {name: os.environ[name] for name in os.environ if name != "MEDIAD_CONFIG"} | {
        "MEDIAD_AUDIOSOCKET__PORT": "0",
        "MEDIAD_HTTP__PORT": "0",
        "MEDIAD_AI__AGENT_URL": "ws://127.0.0.1:1",
        "MEDIAD_AUDIOSOCKET__DRAIN_TIMEOUT_S": "0",
        "MEDIAD_DATABASE__DIRECTORY": str(tmp_path / "state"),
    }

    def listening() -> Mediad | None:
        found = re.search(r"calls on 127\.0\.0\.1:(\d+), HTTP on (\S+),", log.read_text())
        return Mediad(("127.0.0.1", int(found[1])), f"http://{found[2]}") if found else None

    with running([sys.executable, "-m", "mediad", "serve"], environment, log):
        yield wait_for(listening, "mediad")


@pytest.fixture(scope="session")
def prometheus() -> Program:
    return find_program("prometheus", "prometheus")


@pytest.fixture(scope="session")
def promtool() -> Program:
    return find_program("promtool", "prometheus")


def run(program: Program, *arguments: str | Path, stdin: str = "") -> None:
    done = subprocess.run(
        [program.path, *arguments],
        env=program.environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_scrapes_a_running_mediad(
    mediad: Mediad, prometheus: Program, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        own = f"127.0.0.1:{probe.getsockname()[1]}"
    # The example as it stands, but for where mediad is and how often it is asked.
    text = (CONFIG / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("mediad:8080", mediad.http.removeprefix("http://"))
    text = text.replace("_interval: 10s", "_interval: 200ms")
    (tmp_path / "prometheus.yml").write_text(text, encoding="utf-8")
    (tmp_path / "alerts.yml").write_bytes(ALERTS.read_bytes())
    command = [
        str(prometheus.path),
        f"--config.file={tmp_path}/prometheus.yml",
        f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={own}",
    ]

    def calls(expected: str) -> bool | None:
        query = urllib.parse.urlencode({"query": 'mediad_calls{job="mediad"}'})
        try:
            result = json.loads(get(f"http://{own}/api/v1/query?{query}"))["data"]["result"]
        except OSError:  # Prometheus is still starting
            return None
        return True if [each["value"][1] for each in result] == [expected] else None

    with running(command, prometheus.environment, tmp_path / "prometheus.log"):
        wait_for(lambda: calls("0"), "mediad_calls 0")
        with socket.create_connection(mediad.audiosocket) as call:
            call.sendall(uuid_message(uuid4()))
            wait_for(lambda: calls("1"), "mediad_calls 1")
        wait_for(lambda: calls("0"), "the call's end")
        rules = json.loads(get(f"http://{own}/api/v1/rules"))["data"]["groups"][0]["rules"]
        assert {rule["health"] for rule in rules} <= {"ok", "unknown"}  # unknown: not evaluated yet


async def test_metrics_may_have_an_address_of_their_own() -> None:
    wanted = settings("ws://127.0.0.1:9")
    own = {"port": 0, "metrics_host": "127.0.0.2", "metrics_port": 0}
    wanted = wanted.model_copy(update={"http": wanted.http.model_validate(own)})
    async with running_here(wanted) as daemon, httpx.AsyncClient() as http:
        assert daemon.app.metrics_address is not None
        host, port = daemon.app.metrics_address
        assert host == "127.0.0.2"
        answer = await http.get(f"http://{host}:{port}/metrics")
        assert (answer.status_code, "\nmediad_calls 0.0\n" in answer.text) == (200, True)
        for path in ("/readyz", "/v1/me", "/openapi.json", "/docs"):
            assert (await http.get(f"http://{host}:{port}{path}")).status_code == 404, path
        assert (await daemon.get("/metrics"))[0] == 404
        assert (await daemon.get("/readyz"))[0] == 200


async def test_answers_are_counted_by_their_status() -> None:
    async with running_here(settings("ws://127.0.0.1:9")) as daemon, httpx.AsyncClient() as http:
        address = "{}:{}".format(*daemon.app.http_address)
        assert (await http.get(f"http://{address}/v1/me")).status_code == 401
        with pytest.raises(InvalidStatus):
            await connect(f"ws://{address}/v1/ws")
        await daemon.metric_reaches(2, "mediad_http_answers_total", status="401")
        assert await daemon.metric("mediad_http_answers_total", status="500") == 0


def test_metrics_are_as_prometheus_wants_them(mediad: Mediad, promtool: Program) -> None:
    run(promtool, "check", "metrics", stdin=get(f"{mediad.http}/metrics"))


def test_alerts_use_only_metrics_that_exist(mediad: Mediad) -> None:
    exposed = set(re.findall(r"^# TYPE (\S+)", get(f"{mediad.http}/metrics"), re.MULTILINE))
    used = set(re.findall(r"mediad_\w+", ALERTS.read_text(encoding="utf-8")))
    assert used
    assert {name.removesuffix("_bucket") for name in used} <= exposed


def test_every_limit_in_the_readme_has_its_metric(mediad: Mediad) -> None:
    exposed = set(re.findall(r"^# TYPE (\S+)", get(f"{mediad.http}/metrics"), re.MULTILINE))
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/mediad").rglob("*.py"))
    table = (ROOT / "README.md").read_text("utf-8").partition("| counted as |")[2]
    rows = table.partition("\n\n")[0].splitlines()[2:]
    assert len(rows) > 20
    for row in rows:
        limit, *_, counted = (cell.strip() for cell in row.strip("|").split("|"))
        names = re.findall(r"`(\w+)(?:\{(\w+)\})?`", counted)
        assert names or limit == "open files", row  # which is no counter, but a refusal to start
        for name, label in names:
            with_redis = f'"mediad_{name}"' in source and name.startswith("cache_")
            assert {f"mediad_{name}", f"mediad_{name}_total"} & exposed or with_redis, row
            assert label.isdecimal() or not label or f'"{label}"' in source, row


def test_example_configuration_is_valid(promtool: Program) -> None:
    run(promtool, "check", "config", CONFIG / "prometheus.yml")


HEALTHY = {
    'up{job="mediad"}': "1x30",
    'mediad_audiosocket_connections_closed_total{reason="empty"}': "0+6x30",
    'mediad_agent_connects_total{outcome="open"}': "0+100x30",
    'mediad_agent_connects_total{outcome="unreachable"}': "0+1x30",
    'mediad_calls_ended_total{by="caller",cause="normal_clearing"}': "0+100x30",
    'mediad_calls_ended_total{by="system",cause="destination_out_of_order"}': "0+1x30",
    'mediad_event_loop_lag_seconds_bucket{le="0.005"}': "0+12000x30",
    'mediad_event_loop_lag_seconds_bucket{le="+Inf"}': "0+12000x30",
    "mediad_audiosocket_accept_pauses_total": "0x30",
    "mediad_event_loop_stalls_total": "0+0.1x30",
    "mediad_ticks_skipped_total": "0x30",
    "mediad_played_frames_total": "0+3000x30",
    "mediad_underrun_frames_total": "0+3x30",
    "mediad_caller_audio_dropped_frames_total": "0x30",
    'mediad_response_seconds_bucket{le="1.0"}': "0+100x30",
    'mediad_response_seconds_bucket{le="+Inf"}': "0+100x30",
    "mediad_events_dropped_total": "0x30",
    "mediad_database_failures_total": "0x20 3x10",
    "mediad_journal_bytes": "20000x30",
    "mediad_journal_oldest_seconds": "0.1x30",
    'mediad_journal_refused_facts_total{reason="full"}': "0x30",
    "mediad_writer_rejected_facts_total": "0x30",
    "mediad_webhook_oldest_seconds": "2x30",
    'mediad_webhook_attempts_total{outcome="dead"}': "0x30",
    'mediad_webhook_attempt_seconds_bucket{le="0.5"}': "0+100x30",
    'mediad_webhook_attempt_seconds_bucket{le="+Inf"}': "0+100x30",
}

# Each alert with what makes it fire, beside what is healthy.
FAULTS = {
    "MediadDown": {'up{job="mediad"}': "0x30"},
    "MediadRefusesCalls": {
        'mediad_audiosocket_connections_closed_total{reason="max_calls"}': "0+1x30"
    },
    "MediadOutOfFiles": {"mediad_audiosocket_accept_pauses_total": "0+1x30"},
    "MediadAgentUnreachable": {
        'mediad_agent_connects_total{outcome="unreachable"}': "0+20x30",
    },
    "MediadCallsFail": {
        'mediad_calls_ended_total{by="system",cause="destination_out_of_order"}': "0+10x30"
    },
    "MediadLoopLag": {
        'mediad_event_loop_lag_seconds_bucket{le="0.005"}': "0+11000x30",
        'mediad_event_loop_lag_seconds_bucket{le="0.05"}': "0+12000x30",
    },
    "MediadLoopStalls": {"mediad_event_loop_stalls_total": "0+2x30"},
    "MediadSkipsFrames": {"mediad_ticks_skipped_total": "0+1x30"},
    "MediadUnderruns": {"mediad_underrun_frames_total": "0+60x30"},
    "MediadCallerAudioDropped": {"mediad_caller_audio_dropped_frames_total": "0+50x30"},
    "MediadSlowAnswers": {
        'mediad_response_seconds_bucket{le="1.0"}': "0+80x30",
        'mediad_response_seconds_bucket{le="2.5"}': "0+100x30",
    },
    "MediadEventsDropped": {"mediad_events_dropped_total": "0+1x30"},
    "MediadDatabaseDown": {"mediad_database_failures_total": "0+6x30"},
    "MediadFactsWait": {"mediad_journal_oldest_seconds": "0+60x30"},
    "MediadJournalFills": {"mediad_journal_bytes": "0+5000000x30"},
    "MediadFactsLost": {'mediad_journal_refused_facts_total{reason="full"}': "0+1x30"},
    "MediadFactsRejected": {"mediad_writer_rejected_facts_total": "0+1x30"},
    "MediadWebhooksWait": {"mediad_webhook_oldest_seconds": "0+120x30"},
    "MediadWebhooksDead": {'mediad_webhook_attempts_total{outcome="dead"}': "0+1x30"},
    "MediadWebhooksSlow": {
        'mediad_webhook_attempt_seconds_bucket{le="0.5"}': "0+80x30",
        'mediad_webhook_attempt_seconds_bucket{le="10.0"}': "0+100x30",
    },
}


def rules_test(series: dict[str, str], firing: list[str]) -> dict[str, object]:
    """Return a test for promtool: which alerts fire after 25 minutes of these series."""
    alerts = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in firing]
    expression = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": series[name]} for name in series],
        "promql_expr_test": [{"expr": expression, "eval_time": "25m", "exp_samples": alerts}],
    }


def test_each_alert_fires_by_its_fault_alone(promtool: Program, tmp_path: Path) -> None:
    tests = [rules_test(HEALTHY, [])]
    tests += [rules_test(HEALTHY | fault, [name]) for name, fault in FAULTS.items()]
    path = tmp_path / "alerts_test.yml"
    path.write_text(  # JSON is YAML
        json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}),
        encoding="utf-8",
    )
    run(promtool, "test", "rules", path)


def test_every_alert_is_tested() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    assert alerts == list(FAULTS)


def test_missing_program_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # a machine without apt-get
    with pytest.raises(servers.MissingProgramError, match=r"no-such-server .* what Debian calls"):
        find_program("no-such-server", "no-such-package")
