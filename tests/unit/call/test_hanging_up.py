"""How mediad ends a call by itself, as at the end of a drain, on a virtual clock."""

import asyncio

import pytest

from mediad.ai.tts_cache import NoStore
from tests import virtual_time
from tests.fakes.memory_pipeline import memory_call


@pytest.mark.parametrize("since_frame_s", [0.001, 0.007, 0.013, 0.019])
def test_0x00_leaves_when_the_frame_before_it_has_had_its_20_ms(
    since_frame_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk() -> None:
        async with memory_call(monkeypatch, NoStore()) as call:
            await call.be_quiet(1.0)
            frames = len(call.written)
            while len(call.written) == frames:  # noqa: ASYNC110 (it has no event)
                await asyncio.sleep(0.0005)
            await asyncio.sleep(since_frame_s)
            call.session.hang_up("system", "normal_unspecified")
            while not call.is_hung_up:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
            last_at = call.written[-1][0]
            assert len(call.written) == frames + 1
            assert asyncio.get_running_loop().time() - last_at == pytest.approx(0.020, abs=0.001)

    virtual_time.run(talk())
