"""What an agent's configuration and the settings make of a call's turns."""

from mediad.call.pipeline_options import agent_config, turn_options, voice_of
from mediad.call.turn.options import TurnOptions
from mediad.config import Settings
from mediad.wire.service import Voice


def options(agent: dict[str, object] | None = None, **tables: object) -> TurnOptions:
    """Return what they make of them."""
    settings = Settings.model_validate(tables)
    return turn_options(agent_config(agent, settings.pipeline), settings)


def test_no_timer_of_the_turns_is_shorter_than_what_the_services_may_take() -> None:
    wanted, at_first = options(), TurnOptions()
    for name in ("finals_patience_s", "finals_timeout_s", "answer_timeout_s", "speech_timeout_s"):
        assert getattr(wanted, name) == getattr(at_first, name)
    patient = options(
        stt={"timeout_s": 3, "budget_s": 4},
        llm={"timeout_s": 20, "budget_s": 60},
        tts={"budget_s": 9},
    )
    assert patient.finals_patience_s == 1.5
    assert patient.finals_timeout_s > 3 + 4
    assert patient.speech_timeout_s > 9
    assert patient.answer_timeout_s > 60 + 9


def test_an_agent_goes_before_the_settings() -> None:
    flow = {"user_start_first": True, "response_delay_ms": 250, "interruption": {"allowed": False}}
    agent = {"first_message": "Hello.", "flow": flow, "session_timeout_s": 60}
    wanted = options(agent, pipeline={"end_silence_s": 0.4, "end_of_turn": "both"})
    assert (wanted.user_start_first, wanted.interruption_allowed) == (True, False)
    assert (wanted.response_delay_s, wanted.session_timeout_s) == (0.25, 60.0)
    assert (wanted.has_first_message, wanted.end_silence_s, wanted.end_by) == (True, 0.4, "both")
    plain = options(None, pipeline={"first_message": "Hello."})
    assert (plain.user_start_first, plain.interruption_allowed) == (False, True)
    assert (plain.response_delay_s, plain.has_first_message) == (0.0, True)


def test_an_agent_has_its_own_voice() -> None:
    settings = Settings.model_validate({"tts": {"voice": "anna", "rate": 1.2}})
    config = agent_config({"language": "de-DE", "voice": {"voice_id": "bert"}}, settings.pipeline)
    assert voice_of(config, settings.tts) == Voice("bert", "de-DE", 1.2)
    assert voice_of(agent_config(None, settings.pipeline), settings.tts).voice == "anna"
