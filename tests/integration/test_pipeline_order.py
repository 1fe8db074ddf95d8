"""What comes before what on a pipeline's call: services that wait for it prove it, not a clock."""

import asyncio
from functools import partial

from websockets.asyncio.server import serve

from bench import pipeline as bench
from mediad.caller import Caller
from mediad.config import Settings
from mediad.speech.dialogue import Dialogue
from mediad.speech.roles.call import serve_call
from mediad.speech.roles.llm import script_service
from mediad.wire.frames import AudioFrame, Text, Transcription
from mediad.wire.service import Done, Generate, StoppedSpeaking
from tests.fakes.service import RATE_HZ, FakeService, ServiceConnection, answer, pcm_of
from tests.integration.daemon import running, settings
from tests.integration.test_pipeline import PATIENCE, SPEECH, more, rig

SENTENCES = ("The first sentence is heard.", "Then the second is written.")


async def test_the_first_sentence_is_heard_before_the_second_is_written() -> None:
    heard = asyncio.Event()

    async def waits_for_the_caller(connection: ServiceConnection) -> None:
        """Write the second sentence once the caller has heard audio of the first."""
        (asked,) = await more(connection, 0)
        assert isinstance(asked, Generate)
        await connection.send(Text(asked.n, SENTENCES[0]))
        await heard.wait()
        await connection.send(Text(asked.n, " "), Text(asked.n, SENTENCES[1]), Done(asked.n))

    async with rig(llm=waits_for_the_caller) as it:
        await it.caller.wait_for_speech()
        assert [text.text for text in it.tts.asked(Text)] == [SENTENCES[0]]
        heard.set()
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        assert it.texts("out") == [" ".join(SENTENCES)]
        assert [text.text for text in it.tts.asked(Text)] == list(SENTENCES)


async def test_a_sentence_is_heard_before_all_of_it_is_spoken() -> None:
    heard = asyncio.Event()
    halves = pcm_of("x" * 20), pcm_of("y" * 20)

    async def speaks_in_halves(connection: ServiceConnection) -> None:
        """Send the second half of the audio once the caller has heard some of the first."""
        (asked,) = await more(connection, 0)
        assert isinstance(asked, Text)
        await connection.send(AudioFrame(halves[0], RATE_HZ, 1))
        await heard.wait()
        await connection.send(AudioFrame(halves[1], RATE_HZ, 1), Done(asked.id))

    async with rig(tts=speaks_in_halves, first_message="Hello.") as it:
        await it.caller.wait_for_speech()
        heard.set()
        assert await it.turn_ends(0) == {"n": 1, "how": "finished"}
        assert it.texts("out") == ["Hello."]


async def hears_stop(connection: ServiceConnection) -> None:
    """Hear one word in whatever is said."""
    known = 0
    while not connection.is_over:
        for message in await more(connection, known):
            known += 1
            if isinstance(message, StoppedSpeaking) and message.n is not None:
                await connection.send(Transcription("stop", "", ""), Done(message.n))


async def test_the_offline_services_goodbye_is_heard_before_the_call_ends() -> None:
    """Its language model hangs up when it is told to stop."""
    serve_one = partial(serve_call, role="llm", open_handler=script_service())
    goodbye = Dialogue().hear("stop").sentences[0]
    async with (
        FakeService("stt", hears_stop) as stt,
        FakeService("tts", answer) as tts,
        serve(serve_one, "127.0.0.1", 0, compression=None, close_timeout=1) as llm,
    ):
        port = llm.sockets[0].getsockname()[1]
        urls = {"stt": stt.url, "llm": f"ws://127.0.0.1:{port}", "tts": tts.url}
        wanted = settings().model_dump()
        wanted["ai"] |= {"link": "pipeline", "agent_url": ["ws://127.0.0.1:9"]}
        wanted |= {role: {"url": [url]} | PATIENCE for role, url in urls.items()}
        wanted["pipeline"] = {"first_message": "Hello."}
        async with (
            running(Settings.model_validate(wanted)) as daemon,
            Caller(*daemon.app.audiosocket_address) as caller,
        ):
            await daemon.event("turn_ended", timeout_s=15)
            caller.say(SPEECH.pcm, SPEECH.rate_hz)
            end = (await daemon.event("call_hungup", timeout_s=20)).data
            assert (end["hangup_by"], end["hangup_cause"]) == ("agent", "normal_clearing")
            said = [event.data["text"] for event in daemon.events("transcript_created")]
            assert said == ["Hello.", "stop", goodbye]
            assert (await caller.ended()).how == "hangup"
            assert pcm_of(goodbye)[-800:] in bytes(caller.heard.pcm)
            assert await daemon.metric("mediad_tool_calls_total", tool="hang_up") == 1


async def test_the_bench_counts_each_answer_once() -> None:
    # A longer silence than the bench's: callers that stand still have not ended their turn.
    plan = bench.Plan(calls=2, turns=2, end_silence_s=2.5)
    cold, kept = await asyncio.to_thread(bench.measure, plan)
    texts = plan.calls * (plan.turns + 1)  # each answer and the first message
    for answers in (cold, kept):
        assert len(answers.waits_s) == plan.calls * plan.turns
        assert answers.unanswered == 0
        assert answers.waits_s[0] > 0.0  # no answer before the silence is over
        assert sum(answers.reads.values()) == texts
    assert cold.reads["miss"] >= plan.calls * plan.turns
    assert kept.reads["hit"] > 0
