"""The images, the Compose file and the service: what they name exists, and their times and limits
suffice. Neither Docker nor systemd is needed, nothing is started.
"""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mediad.config import Settings
from mediad.files import files_needed
from tests.missing import skip_or_fail
from tests.servers import MissingProgramError, find_program

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"

# Pipecat brings PyYAML; only in CI must it be there.
yaml: Any = import_module("yaml") if os.environ.get("CI") else pytest.importorskip("yaml")

STOP_S = 30  # after the drain, if each part of mediad takes as long as it may

Service = dict[str, Any]

COMPOSE: dict[str, Any] = yaml.safe_load((CONFIG / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Service] = COMPOSE["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=list(SERVICES))


def dockerfile(service: Service) -> Path | None:
    """Return the Dockerfile that a service is built from; None when its image is taken ready."""
    build = service.get("build")
    if build is None:
        return None
    return (
        CONFIG / (build if isinstance(build, str) else build["context"]) / "Dockerfile"
    ).resolve()


def stages(path: Path) -> dict[str, str]:
    """Return a Dockerfile's stages: name (or number) → instructions."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    parts = re.split(r"^FROM (.+)$", text, flags=re.MULTILINE)[1:]
    names = [line.rpartition(" AS ")[2] for line in parts[::2]]
    return dict(zip(names, parts[1::2], strict=True))


@each_service
def test_what_is_mounted_exists(service: Service) -> None:
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        assert source in COMPOSE["volumes"] or (CONFIG / source).exists(), source


@each_service
def test_what_is_built_is_a_stage(service: Service) -> None:
    path = dockerfile(service)
    if path is not None:
        assert path.is_file()
        target = service["build"]["target"] if isinstance(service["build"], dict) else None
        assert target is None or target in stages(path)


@each_service
def test_health_is_checked(service: Service) -> None:
    path = dockerfile(service)
    if path is None:
        assert service["healthcheck"]["test"][0] == "CMD"
    else:
        target = service["build"]["target"] if isinstance(service["build"], dict) else None
        assert "HEALTHCHECK" in stages(path)[target or list(stages(path))[-1]]


@each_service
def test_it_is_given_time_to_stop_and_one_network(service: Service) -> None:
    assert "stop_grace_period" in service
    assert service["networks"] == list(COMPOSE["networks"])


@each_service
def test_nothing_is_published_beyond_the_machine(service: Service) -> None:
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", CONFIG / "asterisk/Dockerfile"])
def test_what_an_image_copies_exists(path: Path) -> None:
    for line in re.findall(r"^COPY (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE):
        for source in line.split()[:-1]:
            assert (path.parent / source).exists(), source


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", CONFIG / "asterisk/Dockerfile"])
def test_no_image_runs_as_root(path: Path) -> None:
    for name, text in stages(path).items():
        assert "CMD [" not in text or re.search(r"^USER (?!root)", text, re.MULTILINE), name


def test_mediad_is_given_time_to_drain_before_its_asterisk_stops() -> None:
    grace = SERVICES["mediad"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) >= Settings().audiosocket.drain_timeout_s + STOP_S
    # What depends on others is stopped before them.
    assert "asterisk" in SERVICES["mediad"]["depends_on"]
    assert "depends_on" not in SERVICES["asterisk"]


def test_default_image_is_mediad() -> None:
    assert list(stages(ROOT / "Dockerfile"))[-1] == "mediad"


def test_environment_names_settings() -> None:
    known = {
        f"MEDIAD_{table}__{key}".upper()
        for table, keys in Settings().model_dump().items()
        for key in keys
    } | {"MEDIAD_CORE"}
    files = (ROOT / "Dockerfile", CONFIG / "compose.yaml")
    for path in files:
        names = set(re.findall(r"MEDIAD_\w*[A-Z]", path.read_text(encoding="utf-8")))
        assert names <= known, path


def test_everything_the_build_copies_is_let_through_to_it() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    (copied,) = re.findall(
        r"^COPY (.+) \./$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE
    )
    assert {f"!{name}" for name in copied.split()} <= set(rules)


# systemd

UNIT = CONFIG / "systemd/mediad.service"


def directive(name: str) -> str:
    """Return what the unit sets a directive to."""
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE)
    return str(value)


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    try:
        program = find_program("systemd-analyze", "systemd")
    except MissingProgramError as exc:
        skip_or_fail(exc)
    # It wants the program to be there.
    here = UNIT.read_text("utf-8").replace("/usr/local/bin/mediad", sys.executable)
    unit = tmp_path / UNIT.name
    unit.write_text(here, "utf-8")
    environment = program.environment
    private = program.path.parents[1] / "lib/x86_64-linux-gnu/systemd"  # if it was unpacked
    if private.is_dir() and "LD_LIBRARY_PATH" in environment:
        environment["LD_LIBRARY_PATH"] += f":{private}"
    done = subprocess.run(
        [program.path, "verify", "--man=no", unit],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_service_tells_systemd_that_it_is_ready_and_lives() -> None:
    assert directive("Type") == "notify"
    assert int(directive("WatchdogSec")) >= 5


def test_service_may_open_the_files_its_calls_need() -> None:
    database = {"url": "mysql://a@b/c", "pool_max": 1000}
    largest = {"database": database, "redis": {"url": "redis://a"}, "http": {"metrics_port": 1}}
    settings = Settings.model_validate({"audiosocket": {"max_calls": 12_000}, **largest})
    assert int(directive("LimitNOFILE")) > sum(files_needed(settings).values())


def test_service_is_given_time_to_drain() -> None:
    timeout_s = int(directive("TimeoutStopSec"))
    assert timeout_s >= Settings().audiosocket.drain_timeout_s + STOP_S


def test_service_has_mediads_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"/var/lib/{directive('StateDirectory')}")
    assert Settings().database.state_directory == Path("/var/lib/mediad")
