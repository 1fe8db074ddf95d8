"""The minimal services of the README, as they stand there, keep to the protocol."""

import asyncio
import socket
import sys
from pathlib import Path
from typing import get_args

import pytest
from websockets.asyncio.client import connect

from mediad.speech.check.suite import check_service
from mediad.wire.service import Role
from tests.readme_services import write_services

MAX_LINES = 50


@pytest.fixture
def services(tmp_path: Path) -> Path:
    assert write_services(tmp_path) == ["service.py", *(f"{role}.py" for role in get_args(Role))]
    return tmp_path


async def _listens(url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with connect(url, compression=None):
                    return
            except OSError:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("role", get_args(Role))
async def test_the_service_of_the_readme_passes_the_check(role: Role, services: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", f"{role}.py", str(port)),
        cwd=services,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        url = f"ws://127.0.0.1:{port}"
        await _listens(url)
        results = [result async for result in check_service(url, role)]
    finally:
        process.terminate()
        _, err = await process.communicate()
    assert [result for result in results if result.result != "passed"] == []
    assert b"never retrieved" not in err


def test_they_are_short(services: Path) -> None:
    for path in (services / "service.py", *(services / f"{role}.py" for role in get_args(Role))):
        assert len([line for line in path.read_text().splitlines() if line]) <= MAX_LINES
