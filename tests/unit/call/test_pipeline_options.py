"""What an agent's configuration and the settings make of a call's turns."""

from mediad.call.pipeline_options import agent_config, turn_options
from mediad.call.turn.options import TurnOptions
from mediad.config import Settings


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
