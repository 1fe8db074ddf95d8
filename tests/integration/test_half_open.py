"""An Asterisk that is gone without a word: its call ends, though nothing says so."""

from mediad.config import AudioSocket
from tests.fakes.agent import FakeAgent, echo
from tests.fakes.asterisk import SILENCE
from tests.half_open import vanish
from tests.integration.daemon import running, settings


async def test_call_ends_with_a_cause_of_its_own() -> None:
    audiosocket = {"dead_peer_s": 1}
    async with (
        FakeAgent(echo) as agent,
        running(settings(agent.url, audiosocket=audiosocket)) as daemon,
        daemon.call() as call,
        daemon.call() as other,
    ):
        await call.play([SILENCE] * 20)  # it was a call like any other
        vanish(call.transport.get_extra_info("socket"))
        end = await daemon.hung_up(call, timeout_s=20)
        assert end == ("caller", "network_out_of_order")
        await other.hears(5)
        assert daemon.app.calls.live == 1
        ended = "mediad_calls_ended_total"
        assert await daemon.metric(ended, by="caller", cause="network_out_of_order") == 1


def test_by_default_it_is_found_within_half_a_minute() -> None:
    assert AudioSocket().dead_peer_s < 30
