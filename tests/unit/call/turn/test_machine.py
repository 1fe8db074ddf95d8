"""The turn machine on a virtual clock: a call is a table of what happens, and what comes of it."""

import gc
from dataclasses import replace

import pytest

from mediad.call.turn.actions import Generate, WasNoise
from mediad.call.turn.machine import MAX_GO_ON, State, Turns
from mediad.call.turn.options import EndBy, TurnOptions
from tests.unit.call.turn.scripts import LISTENER, play

ASKED = """
    1.00 voice
    1.50 interim I want
    2.10 quiet
    2.20 final I want tea.
"""
ANSWERED = (
    ASKED
    + """
    2.80 done 1
    3.00 heard 1
"""
)
UNTIL_ANSWERED = ["2.70 end of turn 1 by silence", "2.80 generate 1 answer I want tea."]


def script(lines: list[str]) -> list[str]:
    """Return the lines of a long list that matter after the answer has begun."""
    assert lines[:2] == UNTIL_ANSWERED
    return lines[2:]


# Turns without any trouble


def test_a_turn_is_asked_answered_and_ended() -> None:
    assert play(LISTENER, ANSWERED + "5.00 finished 1", 6.0, quietly=False) == [
        "1.00 caller",
        "2.10 quiet",
        *UNTIL_ANSWERED,
        "5.00 turn 1 finished",
    ]


def test_a_pause_within_the_turn_does_not_end_it() -> None:
    lines = play(
        LISTENER,
        """
        1.00 voice
        1.60 quiet
        1.70 final I want
        2.10 voice
        2.60 quiet
        2.70 final tea.
        3.30 done 1
        """,
        4.0,
    )
    assert lines == ["3.20 end of turn 1 by silence", "3.30 generate 1 answer I want tea."]


def test_the_last_interim_counts_when_the_finals_are_late() -> None:
    lines = play(LISTENER, "1.00 voice\n1.30 interim one two\n1.60 quiet", 4.0)
    assert lines == ["2.20 end of turn 1 by silence", "3.20 generate 1 answer one two"]


def test_late_finals_of_an_answered_turn_replace_what_was_answered() -> None:
    lines = play(
        LISTENER,
        """
        1.00 voice
        1.20 final one
        1.30 interim two
        1.60 quiet
        3.30 interim two th
        3.40 final two three
        3.45 final four
        3.50 done 1
        3.60 heard 1
        """,
        4.0,
    )
    answered = ["3.20 generate 1 answer one two"]
    assert lines[1:] == [*answered, "3.40 add two three for two", "3.45 add four"]


@pytest.mark.parametrize(
    ("happens", "stand"),
    [
        ("", ["5.20 stand two"]),
        ("3.40 final two three", []),
        ("3.40 interim two three", ["5.20 stand two"]),
        ("3.40 done 1", ["3.40 stand two"]),
        ("5.30 final two three", ["5.20 stand two"]),
        ("3.60 heard 1\n3.80 finished 1\n4.00 final go", ["4.00 stand two"]),
        ("3.40 hung-up", ["3.40 stand two"]),
        ("3.00 final two", []),
        ("3.00 done 1", []),
    ],
)
def test_words_that_were_answered_stand_when_no_final_comes_for_them(
    happens: str, stand: list[str]
) -> None:
    script = "1.00 voice\n1.20 final one\n1.30 interim two\n1.60 quiet\n" + happens
    lines = play(LISTENER, script, 6.0, quietly=False)
    assert [line for line in lines if "stand" in line] == stand


def test_the_only_words_stand_when_the_service_is_done_with_them() -> None:
    script = "1.00 voice\n1.30 interim two\n1.60 quiet\n3.00 done 1"
    assert play(LISTENER, script, 6.0, quietly=False)[2:] == [
        "2.20 end of turn 1 by silence",
        "3.00 generate 1 answer two",
        "3.00 stand two",
    ]


def test_what_is_typed_is_no_late_final() -> None:
    happens = "1.00 voice\n1.30 interim one two\n1.60 quiet\n3.40 heard 1\n3.60 typed 5\n"
    lines = play(LISTENER, happens + "4.40 done 2", 5.0)
    assert lines[1:] == [
        "3.20 generate 1 answer one two",
        "3.60 cancel 1",
        "3.60 turn 1 interrupted",
        "4.30 end of turn 2 by silence",
        "4.40 generate 2 answer 5",
    ]


def test_finals_are_waited_for_while_there_is_no_word() -> None:
    lines = play(LISTENER, "1.00 voice\n1.60 quiet\n3.50 final yes\n3.60 done 1", 5.0)
    assert lines == ["2.20 end of turn 1 by silence", "3.60 generate 1 answer yes"]


def test_the_first_word_is_not_answered_before_what_follows_it() -> None:
    happens = "1.00 voice\n1.60 quiet\n3.50 interim yes\n4.00 interim yes please"
    assert play(LISTENER, happens, 5.0) == [
        "2.20 end of turn 1 by silence",
        "4.50 generate 1 answer yes please",
    ]


def test_speech_without_a_word_is_an_empty_turn() -> None:
    lines = play(LISTENER, "1.00 voice\n1.60 quiet\n2.30 done 1", 3.0)
    assert lines == ["2.20 end of turn 1 by silence", "2.30 turn 1 empty"]


def test_less_than_the_minimum_of_speech_is_nothing() -> None:
    assert play(LISTENER, "1.00 voice\n1.12 quiet", 3.0) == []


def test_a_word_is_a_turn_however_short() -> None:
    lines = play(LISTENER, "1.00 voice\n1.12 quiet\n1.40 final no", 3.0)
    assert lines[0] == "1.72 end of turn 1 by silence"


def test_words_too_soft_for_the_gate_are_a_turn() -> None:
    lines = play(LISTENER, "1.00 interim can\n1.50 interim can you\n1.70 final can you hear", 3.0)
    assert lines[0] == "2.40 end of turn 1 by silence"


def test_a_turn_without_end_is_answered_after_a_minute() -> None:
    lines = play(LISTENER, "1.00 voice\n30.00 final on and on\n61.10 done 1", 62.0)
    assert lines[0] == "61.00 end of turn 1 by length"
    assert lines[-1] == "61.10 generate 1 answer on and on"


def test_noise_without_end_lets_the_agent_ask_again() -> None:
    lines = play(LISTENER, "1.00 voice\n61.10 done 1\n65.00 quiet", 70.0)
    assert lines == [
        "61.00 end of turn 1 by length",
        "61.10 turn 1 empty",
        "69.10 say 2 no_input 1",
    ]


# End of turn: silence, the STT's word, or both


@pytest.mark.parametrize(
    ("end_by", "lines"),
    [
        (EndBy.SILENCE, ["2.20 end of turn 1 by silence", "3.20 generate 1 answer tea"]),
        (EndBy.STT, ["1.70 end of turn 1 by stt", "1.70 generate 1 answer tea"]),
        (EndBy.BOTH, ["1.70 end of turn 1 by stt", "1.70 generate 1 answer tea"]),
    ],
)
def test_the_stts_word_ends_the_turn_at_once(end_by: EndBy, lines: list[str]) -> None:
    options = replace(LISTENER, end_by=end_by)
    happens = "1.00 voice\n1.60 quiet\n1.66 final tea\n1.70 stt-end"
    assert play(options, happens, 4.0) == lines


@pytest.mark.parametrize(
    ("end_by", "line"),
    [
        (EndBy.STT, "4.50 end of turn 1 by silence"),
        (EndBy.BOTH, "2.20 end of turn 1 by silence"),
    ],
)
def test_silence_ends_it_when_the_stt_says_nothing(end_by: EndBy, line: str) -> None:
    options = replace(LISTENER, end_by=end_by)
    assert play(options, "1.00 voice\n1.60 quiet\n1.66 final tea", 5.0)[0] == line


def test_the_stts_word_before_its_finals_waits_for_them() -> None:
    options = replace(LISTENER, end_by=EndBy.STT)
    happens = "1.00 voice\n1.40 interim te\n1.60 stt-end\n1.66 final tea\n1.70 done 1"
    assert play(options, happens, 2.0) == [
        "1.60 end of turn 1 by stt",
        "1.70 generate 1 answer tea",
    ]


def test_the_stts_word_means_nothing_when_nobody_has_spoken() -> None:
    assert play(replace(LISTENER, end_by=EndBy.BOTH), "1.00 stt-end", 2.0) == []


# Who begins


def test_the_agent_begins_with_its_first_message() -> None:
    options = TurnOptions(has_first_message=True)
    lines = play(options, "0.50 heard 1\n2.00 finished 1", 3.0)
    assert lines == ["0.00 say 1 first_message 1", "2.00 turn 1 finished"]


def test_without_a_first_message_the_language_model_begins() -> None:
    lines = play(TurnOptions(), "0.50 heard 1\n2.00 finished 1", 3.0)
    assert lines == ["0.00 generate 1 open", "2.00 turn 1 finished"]


def test_the_caller_begins_and_then_hears_the_first_message() -> None:
    options = replace(LISTENER, has_first_message=True)
    happens = """
    1.00 voice
    1.50 quiet
    1.60 final Hello?
    2.20 done 1
    2.30 heard 1
    4.00 finished 1
    5.00 voice
    5.50 quiet
    5.60 final Tea.
    6.20 done 2
    """
    assert play(options, happens, 7.0) == [
        "2.10 end of turn 1 by silence",
        "2.20 add Hello?",
        "2.20 say 1 first_message 1",
        "4.00 turn 1 finished",
        "6.10 end of turn 2 by silence",
        "6.20 generate 2 answer Tea.",
    ]


def test_a_caller_who_does_not_begin_hears_the_first_message_all_the_same() -> None:
    options = replace(LISTENER, has_first_message=True)
    assert play(options, "", 9.0) == ["8.00 say 1 first_message 1"]


def test_at_the_start_the_line_may_crackle() -> None:
    options = replace(LISTENER, grace_s=0.5)
    assert play(options, "0.10 voice\n0.30 quiet", 2.0, quietly=False) == []


def test_whoever_speaks_from_the_start_on_is_heard() -> None:
    options = replace(LISTENER, grace_s=0.5)
    lines = play(options, "0.10 voice\n0.90 quiet\n1.00 final hello", 2.0, quietly=False)
    assert lines == ["0.50 caller", "0.90 quiet", "1.50 end of turn 1 by silence"]


def test_a_word_counts_from_the_start_on() -> None:
    options = replace(LISTENER, grace_s=0.5)
    lines = play(options, "0.10 voice\n0.36 interim hello\n0.40 quiet", 1.5, quietly=False)
    assert lines == ["0.36 caller", "0.40 quiet", "1.00 end of turn 1 by silence"]


# The delay of the response


def test_the_answer_waits_until_the_delay_is_over() -> None:
    options = replace(LISTENER, response_delay_s=2.0)
    assert play(options, ASKED + "2.80 done 1\n4.80 heard 1", 5.0) == [
        "2.70 pause",
        "2.70 end of turn 1 by silence",
        "2.80 generate 1 answer I want tea.",
        "4.70 resume",
    ]


def test_the_delay_begins_where_the_turn_has_ended() -> None:
    lines = play(replace(LISTENER, response_delay_s=0.5), ASKED, 4.0)
    assert lines[:2] == ["2.70 pause", "2.70 end of turn 1 by silence"]
    assert "3.20 resume" in lines


def test_a_delay_is_no_time_out() -> None:
    options = replace(LISTENER, response_delay_s=9.0, answer_timeout_s=6.0)
    lines = play(options, ASKED + "2.80 done 1\n11.75 heard 1", 12.0)
    assert lines[-2:] == ["2.80 generate 1 answer I want tea.", "11.70 resume"]


def test_an_empty_turn_ends_its_delay() -> None:
    options = replace(LISTENER, response_delay_s=2.0)
    assert play(options, "1.00 voice\n1.60 quiet\n2.30 done 1", 5.0)[-2:] == [
        "2.30 turn 1 empty",
        "2.30 resume",
    ]


def test_a_cough_within_the_delay_changes_nothing() -> None:
    options = replace(LISTENER, response_delay_s=2.0)
    lines = play(options, ASKED + "2.80 done 1\n2.90 voice\n3.20 quiet\n4.80 heard 1", 5.0)
    assert lines[-2:] == ["2.80 generate 1 answer I want tea.", "4.70 resume"]


def test_speech_at_the_end_of_the_delay_keeps_the_agent_quiet() -> None:
    options = replace(LISTENER, response_delay_s=2.0)
    lines = play(options, ASKED + "2.80 done 1\n4.50 voice\n4.90 quiet\n5.20 heard 1", 6.0)
    assert lines[-2:] == ["2.80 generate 1 answer I want tea.", "5.05 resume"]


# Speech over the agent


def test_a_cough_stops_the_agent_and_it_goes_on() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.50 voice\n3.90 quiet\n6.00 finished 1", 7.0))
    assert lines == ["3.50 pause", "4.05 resume, repeat", "6.00 turn 1 finished"]


def test_a_barge_in_is_final_with_the_first_word() -> None:
    happens = ANSWERED + "3.50 voice\n3.80 interim stop\n4.00 quiet\n4.10 final stop\n4.70 done 2"
    assert script(play(LISTENER, happens, 5.0)) == [
        "3.50 pause",
        "3.80 cancel 1",
        "3.80 turn 1 interrupted",
        "4.60 end of turn 2 by silence",
        "4.70 generate 2 answer stop",
    ]


def test_a_barge_in_is_final_after_700_ms_of_speech() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.50 voice\n5.00 quiet", 5.2))
    assert lines == ["3.50 pause", "4.20 cancel 1", "4.20 turn 1 interrupted"]


def test_the_700_ms_may_have_gaps() -> None:
    happens = ANSWERED + "3.50 voice\n3.90 quiet\n4.00 voice\n4.80 quiet"
    lines = script(play(LISTENER, happens, 5.0))
    assert lines == ["3.50 pause", "4.30 cancel 1", "4.30 turn 1 interrupted"]


def test_a_cough_after_another_is_two_coughs() -> None:
    happens = ANSWERED + "3.50 voice\n3.90 quiet\n4.10 voice\n4.60 quiet"
    lines = script(play(LISTENER, happens, 5.0))
    assert lines == ["3.50 pause", "4.05 resume, repeat", "4.10 pause", "4.75 resume, repeat"]


def test_a_word_that_comes_after_the_agent_goes_on_stops_it_for_good() -> None:
    happens = ANSWERED + "3.50 voice\n3.80 quiet\n4.40 final no\n4.50 done 3"
    assert script(play(LISTENER, happens, 5.0)) == [
        "3.50 pause",
        "3.95 resume, repeat",
        "4.40 cancel 1",
        "4.40 turn 1 interrupted",
        "4.40 end of turn 3 by silence",
        "4.50 generate 3 answer no",
    ]


def test_an_stt_that_tells_nothing_by_itself_is_asked_when_the_voice_pauses() -> None:
    happens = ANSWERED + "3.50 voice\n3.80 quiet\n3.90 final stop\n3.91 done 2\n4.50 done 3"
    assert script(play(LISTENER, happens, 5.0, quietly=False)[2:]) == [
        "3.50 caller",
        "3.50 pause",
        "3.80 quiet",
        "3.80 ask 2",
        "3.90 cancel 1",
        "3.90 turn 1 interrupted",
        "4.40 end of turn 3 by silence",
        "4.50 generate 3 answer stop",
    ]


def test_it_is_asked_too_where_interruption_is_not_allowed() -> None:
    options = replace(LISTENER, interruption_allowed=False)
    happens = ANSWERED + "3.50 voice\n3.80 quiet\n3.90 final no\n3.91 done 2\n5.00 finished 1"
    assert script(play(options, happens, 5.5, quietly=False)[2:]) == [
        "3.50 caller",
        "3.80 quiet",
        "3.80 ask 2",
        "5.00 turn 1 finished",
        "5.00 end of turn 3 by silence",
    ]


def test_a_word_that_no_gate_heard_is_a_barge_in() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.50 interim wait", 3.6))
    assert lines == ["3.50 cancel 1", "3.50 turn 1 interrupted"]


def test_an_empty_word_is_no_barge_in() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.50 voice\n3.60 interim  \n3.70 quiet", 4.0))
    assert lines == ["3.50 pause", "3.85 resume, repeat"]


def test_the_agent_may_have_finished_when_the_caller_spoke() -> None:
    happens = ANSWERED + "3.50 voice\n3.52 finished 1\n3.90 quiet\n4.00 final yes"
    assert script(play(LISTENER, happens, 5.0)) == [
        "3.50 pause",
        "3.52 turn 1 finished",
        "3.52 resume",
        "4.50 end of turn 2 by silence",
    ]


def test_noise_that_ended_an_answer_is_followed_by_its_rest() -> None:
    happens = ANSWERED + "3.50 voice\n4.50 quiet\n5.20 done 2\n5.40 heard 3\n6.00 finished 3"
    assert script(play(LISTENER, happens, 7.0)) == [
        "3.50 pause",
        "4.20 cancel 1",
        "4.20 turn 1 interrupted",
        "5.10 end of turn 2 by silence",
        "5.20 turn 2 empty",
        "5.20 generate 3 go_on",
        "6.00 turn 3 finished",
    ]


def test_an_answer_goes_on_after_noise_twice_at_most() -> None:
    turns = Turns(LISTENER, 0.0)
    turns.on_words("hello", True, 1.0)
    turns.tick(2.0)
    turns.on_stt_done(1, 2.0)
    now, went_on, noises = 2.0, 0, 0
    for _ in range(MAX_GO_ON + 2):
        now += 1.0
        turns.on_agent_started(turns.turn, now)
        turns.on_voice_started(now)
        turns.tick(now + 0.8)
        turns.on_voice_stopped(now + 1.0, 0.1)
        turns.tick(now + 2.0)
        done = turns.on_stt_done(turns.turn, now + 2.0)
        noises += any(isinstance(action, WasNoise) for action in done)
        went_on += any(isinstance(action, Generate) for action in done)
        now += 2.0
    assert went_on == MAX_GO_ON
    assert noises == MAX_GO_ON + 1  # the last was over nobody
    assert turns.state is State.SILENT


NOISE = "3.50 voice\n4.50 quiet\n5.20 done 2\n"


@pytest.mark.parametrize(
    ("happens", "noises"),
    [
        ("3.50 voice\n3.90 quiet\n", ["4.05 noise"]),
        (NOISE, ["5.20 noise"]),
        (NOISE + "5.30 failed 3\n6.00 heard 4", ["5.20 noise"]),
        ("3.50 voice\n3.80 final stop\n4.00 quiet\n4.80 done 2", []),
        ("3.50 voice\n4.50 quiet\n4.60 final stop\n5.30 done 2", []),
        ("3.50 voice\n4.50 quiet\n5.20 stt-failed 2\n5.30 heard 3\n6.00 finished 3\n", []),
    ],
)
def test_noise_is_told_from_a_voice_afterwards(happens: str, noises: list[str]) -> None:
    lines = play(LISTENER, ANSWERED + happens, 7.0, quietly=False)
    assert [line for line in lines if "noise" in line] == noises


def test_noise_over_a_text_of_others_is_noise_though_nothing_goes_on() -> None:
    happens = "1.00 text\n1.10 heard 1\n2.00 voice\n3.00 quiet\n3.70 done 2"
    lines = play(LISTENER, happens, 5.0, quietly=False)
    assert [line for line in lines if line.split()[1] in ("noise", "generate")] == ["3.70 noise"]


# The caller goes on before a word of the answer was heard

THOUGHT = ASKED + "2.80 done 1\n"


def test_a_cough_before_the_answer_only_delays_it() -> None:
    lines = script(play(LISTENER, THOUGHT + "2.90 voice\n3.20 quiet\n3.40 heard 1", 4.0))
    assert lines == ["2.90 pause", "3.35 resume"]


def test_a_caller_who_goes_on_gets_one_answer_to_all_of_it() -> None:
    happens = THOUGHT + "2.90 voice\n3.30 interim and\n3.60 quiet\n3.70 final and milk\n4.30 done 2"
    assert script(play(LISTENER, happens, 5.0)) == [
        "2.90 pause",
        "3.30 cancel 1",
        "3.30 turn 1 continued",
        "4.20 end of turn 2 by silence",
        "4.30 generate 2 answer and milk",
    ]


def test_words_that_were_not_answered_yet_stay_with_what_follows() -> None:
    happens = ASKED + "2.72 voice\n3.80 quiet\n3.90 final and milk\n4.00 done 1\n4.60 done 2"
    assert play(LISTENER, happens, 5.0) == [
        "2.70 end of turn 1 by silence",
        "2.72 pause",
        "3.42 cancel 1",
        "3.42 turn 1 continued",
        "4.40 end of turn 2 by silence",
        "4.60 generate 2 answer I want tea. and milk",
    ]


def test_voice_goes_on_while_the_finals_find_no_word() -> None:
    happens = "1.00 voice\n1.60 quiet\n2.26 voice\n2.30 done 1\n3.60 quiet"
    assert play(LISTENER, happens, 4.5) == [
        "2.20 end of turn 1 by silence",
        "2.26 pause",
        "2.30 turn 1 empty",
        "2.30 resume",
        "4.20 end of turn 2 by silence",
    ]


# Interruption not allowed

POLITE = replace(LISTENER, interruption_allowed=False)


def test_where_interruption_is_not_allowed_the_agent_speaks_on() -> None:
    happens = ANSWERED + "3.50 voice\n4.50 quiet\n4.60 final stop\n6.00 finished 1\n6.10 done 3"
    assert script(play(POLITE, happens, 7.0)) == [
        "6.00 turn 1 finished",
        "6.00 end of turn 3 by silence",
        "6.10 generate 3 answer stop",
    ]


def test_a_caller_still_speaking_then_has_the_floor() -> None:
    happens = ANSWERED + "3.50 voice\n6.00 finished 1\n6.50 quiet\n6.60 final and then"
    assert script(play(POLITE, happens, 8.0)) == [
        "6.00 turn 1 finished",
        "7.10 end of turn 2 by silence",
    ]


def test_noise_over_the_agent_is_then_nothing() -> None:
    happens = ANSWERED + "3.50 voice\n5.50 quiet\n6.00 finished 1"
    assert script(play(POLITE, happens, 9.0)) == ["6.00 turn 1 finished"]


def test_an_answer_that_is_not_heard_yet_may_be_stopped_even_so() -> None:
    lines = script(play(POLITE, THOUGHT + "2.90 voice\n3.30 interim and", 3.4))
    assert lines == ["2.90 pause", "3.30 cancel 1", "3.30 turn 1 continued"]


def test_but_a_first_message_may_not() -> None:
    options = TurnOptions(has_first_message=True, interruption_allowed=False, grace_s=0.0)
    lines = play(options, "0.10 voice\n0.30 interim hello\n0.50 heard 1", 1.0)
    assert lines == ["0.00 say 1 first_message 1"]


# Nobody speaks


def test_the_agent_asks_twice_and_then_gives_up() -> None:
    happens = (
        ANSWERED
        + """
    4.00 finished 1
    12.20 heard 2
    14.00 finished 2
    22.20 heard 3
    24.00 finished 3
    """
    )
    assert script(play(LISTENER, happens, 40.0)) == [
        "4.00 turn 1 finished",
        "12.00 say 2 no_input 1",
        "14.00 turn 2 finished",
        "22.00 say 3 no_input 2",
        "24.00 turn 3 finished",
        "32.00 give up no_input",
    ]


def test_a_word_starts_the_counting_anew() -> None:
    happens = """
    8.20 heard 1
    9.00 finished 1
    10.00 final here
    10.80 done 2
    11.00 heard 2
    12.00 finished 2
    """
    lines = play(LISTENER, happens, 21.0)
    assert lines[0] == "8.00 say 1 no_input 1"
    assert lines[-1] == "20.00 say 3 no_input 1"


def test_noise_does_not() -> None:
    happens = "8.20 heard 1\n9.00 finished 1\n10.00 voice\n10.10 quiet\n10.70 quiet"
    lines = play(LISTENER, happens, 19.0)
    assert lines[-1] == "18.70 say 2 no_input 2"


def test_the_session_ends_with_its_time() -> None:
    options = replace(LISTENER, session_timeout_s=3.5)
    happens = (
        ANSWERED + "3.60 voice\n3.70 final no\n3.80 done 1\n3.82 stt-end\n3.84 failed 1\n3.86 text"
    )
    assert script(play(options, happens, 9.0)) == [
        "3.50 turn 1 over",
        "3.50 give up session_timeout",
    ]


# Texts of others


def test_a_text_is_said_when_nobody_speaks() -> None:
    lines = play(LISTENER, "1.00 text\n1.10 heard 1\n2.00 finished 1", 11.0)
    assert lines == ["1.00 say 1 text 1", "2.00 turn 1 finished", "10.00 say 2 no_input 1"]


def test_texts_wait_for_the_agent_and_for_each_other() -> None:
    happens = ANSWERED + "3.20 text\n3.40 text\n4.00 finished 1\n4.20 heard 2\n5.00 finished 2"
    assert script(play(LISTENER, happens, 6.0)) == [
        "4.00 turn 1 finished",
        "4.00 say 2 text 1",
        "5.00 turn 2 finished",
        "5.00 say 3 text 1",
    ]


def test_a_text_waits_for_the_caller_and_the_answer() -> None:
    happens = ASKED + "2.20 text\n2.80 done 1\n3.00 heard 1\n4.00 finished 1"
    assert script(play(LISTENER, happens, 5.0)) == ["4.00 turn 1 finished", "4.00 say 2 text 1"]


# Failures


def test_an_answer_of_which_nobody_says_that_it_fails_is_overdue() -> None:
    lines = script(play(LISTENER, THOUGHT + "28.00 heard 2\n29.00 finished 2", 30.0))
    assert lines == [
        "27.80 overdue 1",
        "27.80 cancel 1",
        "27.80 turn 1 failed",
        "27.80 say 2 fallback 1",
        "29.00 turn 2 finished",
    ]


def test_a_text_is_overdue_sooner_than_an_answer() -> None:
    lines = play(LISTENER, "1.00 text", 13.0)
    assert lines[1:] == [
        "12.00 overdue 1",
        "12.00 cancel 1",
        "12.00 turn 1 failed",
        "12.00 say 2 fallback 1",
    ]


@pytest.mark.parametrize("failure", ["2.90 failed 1", "2.90 finished 1"])
def test_a_failure_is_followed_by_the_fallback(failure: str) -> None:
    lines = script(play(LISTENER, THOUGHT + failure, 3.0))
    assert lines == ["2.90 cancel 1", "2.90 turn 1 failed", "2.90 say 2 fallback 1"]


def test_half_an_utterance_is_followed_by_the_fallback() -> None:
    lines = script(play(LISTENER, ANSWERED + "4.00 failed 1", 5.0))
    assert lines == ["4.00 cancel 1", "4.00 turn 1 failed", "4.00 say 2 fallback 1"]


def test_a_failure_of_a_turn_that_has_ended_is_nothing() -> None:
    happens = ANSWERED + "4.00 finished 1\n4.10 failed 1\n4.20 finished 1\n4.30 heard 1"
    assert script(play(LISTENER, happens, 5.0)) == ["4.00 turn 1 finished"]


def test_a_failure_while_the_caller_speaks_leaves_the_floor_to_the_caller() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.50 voice\n3.60 failed 1\n4.40 quiet", 6.0))
    assert lines == [
        "3.50 pause",
        "3.60 cancel 1",
        "3.60 turn 1 failed",
        "5.00 end of turn 2 by silence",
    ]


@pytest.mark.parametrize("words", ["", "1.30 final I want\n", "1.30 interim I\n"])
@pytest.mark.parametrize("lost_at", ["1.50", "1.70"])
@pytest.mark.parametrize("later", ["", "2.35 final to Rome\n"])
def test_words_that_are_lost_while_the_caller_speaks_fail_the_turn(
    words: str, lost_at: str, later: str
) -> None:
    happens = f"1.00 voice\n{words}1.60 quiet\n{lost_at} stt-lost\n{later}2.40 done 1"
    happens = "\n".join(sorted(happens.splitlines()))
    assert play(LISTENER, happens + "\n2.50 heard 2\n3.00 finished 2", 6.0) == [
        "2.20 end of turn 1 by silence",
        "2.40 lost words 1",
        "2.40 cancel 1",
        "2.40 turn 1 failed",
        "2.40 say 2 fallback 1",
        "3.00 turn 2 finished",
    ]


def test_words_that_were_final_are_not_lost() -> None:
    happens = "1.00 voice\n1.60 quiet\n1.80 final Tea.\n1.90 stt-lost\n2.40 done 1"
    assert play(LISTENER, happens, 3.0)[1:] == ["2.40 generate 1 answer Tea."]


def test_what_is_typed_is_answered_though_words_were_lost() -> None:
    happens = "1.00 voice\n1.50 stt-lost\n1.60 quiet\n1.80 typed 5\n2.40 done 1"
    assert play(LISTENER, happens, 3.0)[1:] == ["2.40 generate 1 answer 5"]


@pytest.mark.parametrize(("before", "is_lost"), [("1.00", True), ("0.99", False)])
def test_words_are_lost_if_they_began_before_what_is_held(before: str, is_lost: bool) -> None:
    happens = f"1.00 voice\n1.60 quiet\n2.30 stt-lost {before}\n2.40 done 1"
    lost = "2.40 lost words 1" in play(LISTENER, happens, 3.0)
    assert lost == is_lost


def test_words_that_are_lost_while_nobody_speaks_are_none() -> None:
    happens = "0.50 stt-lost\n" + ANSWERED + "3.50 stt-lost\n5.00 finished 1\n6.00 stt-lost"
    assert script(play(LISTENER, happens, 7.0)) == ["5.00 turn 1 finished"]


def test_a_barge_in_whose_words_are_lost_fails_in_its_turn() -> None:
    happens = ANSWERED + "3.50 voice\n3.60 stt-lost\n4.40 quiet\n5.10 done 2"
    assert script(play(LISTENER, happens, 6.0))[3:] == [
        "5.00 end of turn 2 by silence",
        "5.10 lost words 2",
        "5.10 cancel 2",
        "5.10 turn 2 failed",
        "5.10 say 3 fallback 1",
    ]


NOISES = [
    (LISTENER, "0.05 voice\n0.10 stt-lost\n0.15 quiet\n"),
    (replace(LISTENER, grace_s=0.5), "0.20 voice\n0.25 stt-lost\n0.30 quiet\n"),
]


@pytest.mark.parametrize(("options", "noise"), NOISES)
def test_a_noise_during_which_the_service_was_lost_is_forgotten(
    options: TurnOptions, noise: str
) -> None:
    assert play(options, noise + ANSWERED, 4.0) == UNTIL_ANSWERED


def test_a_noise_over_the_agent_during_which_the_service_was_lost_is_forgotten() -> None:
    happens = ANSWERED + "3.50 voice\n3.55 stt-lost\n3.60 quiet\n5.00 finished 1\n"
    happens += "6.00 voice\n6.60 quiet\n7.40 done 3"
    assert script(play(LISTENER, happens, 8.0))[-1] == "7.40 turn 3 empty"


def test_half_of_what_was_said_is_not_answered_after_the_fallback() -> None:
    happens = "1.00 voice\n1.30 final I want\n1.60 quiet\n2.50 stt-failed 1\n"
    lines = play(LISTENER, happens + "2.60 heard 2\n3.00 finished 2", 6.0)
    assert lines[1:] == [
        "2.50 cancel 1",
        "2.50 turn 1 failed",
        "2.50 say 2 fallback 1",
        "3.00 turn 2 finished",
    ]


def test_a_turn_whose_words_never_come_is_followed_by_the_fallback() -> None:
    asked = "1.00 voice\n1.60 quiet\n"
    lines = play(LISTENER, asked + "2.50 stt-failed 1", 3.0)
    assert lines[1:] == ["2.50 cancel 1", "2.50 turn 1 failed", "2.50 say 2 fallback 1"]
    lines = play(LISTENER, asked, 11.0)
    failed = ["10.20 cancel 1", "10.20 turn 1 failed", "10.20 say 2 fallback 1"]
    assert lines[1:] == ["10.20 overdue 1 words", *failed]


def test_a_turn_that_was_answered_by_what_was_there_is_not_failed_later() -> None:
    happens = "1.00 voice\n1.30 interim half of it\n1.60 quiet\n3.60 heard 1\n4.20 stt-failed 1"
    lines = play(LISTENER, happens, 5.0)
    assert lines[1:] == ["3.20 generate 1 answer half of it"]


def test_a_turn_without_a_word_is_not_failed_later() -> None:
    happens = "1.00 voice\n1.60 quiet\n2.30 done 1\n4.20 stt-failed 1"
    assert play(LISTENER, happens, 5.0)[1:] == ["2.30 turn 1 empty"]


def test_a_caller_who_speaks_again_hears_no_fallback_for_what_was_not_understood() -> None:
    lines = play(LISTENER, "1.00 voice\n1.60 quiet\n4.00 voice\n4.20 stt-failed 1", 5.0)
    assert lines[1:] == ["4.00 pause", "4.20 cancel 1", "4.20 turn 1 failed"]


def test_a_fallback_that_fails_ends_the_call() -> None:
    lines = script(play(LISTENER, THOUGHT + "2.90 failed 1\n3.00 failed 2", 4.0))
    assert lines[-3:] == ["3.00 cancel 2", "3.00 turn 2 failed", "3.00 give up failures"]


def test_three_failures_in_a_row_end_the_call() -> None:
    happens = (
        THOUGHT
        + """
    2.90 failed 1
    3.10 heard 2
    4.00 finished 2
    5.00 final yes
    5.80 stt-failed 3
    6.10 heard 4
    7.00 finished 4
    8.00 final yes
    8.80 stt-failed 5
    """
    )
    assert play(LISTENER, happens, 9.0)[-1] == "8.80 give up failures"


def test_an_answer_in_between_forgives() -> None:
    happens = (
        THOUGHT
        + """
    2.90 failed 1
    3.10 heard 2
    4.00 finished 2
    5.00 final yes
    5.80 done 3
    5.90 heard 3
    6.00 finished 3
    7.00 final yes
    7.80 stt-failed 4
    """
    )
    assert play(LISTENER, happens, 8.0)[-1] == "7.80 say 5 fallback 1"


def test_a_wrong_done_is_nothing() -> None:
    lines = play(LISTENER, ASKED + "2.75 done 9", 3.0)
    assert lines == ["2.70 end of turn 1 by silence"]


def test_voice_is_told_once() -> None:
    turns = Turns(LISTENER, 0.0)
    assert len(turns.on_voice_started(1.0)) == 1
    assert turns.on_voice_started(1.1) == []
    assert len(turns.on_voice_stopped(1.2, 0.1)) == 1
    assert turns.on_voice_stopped(1.3, 0.1) == []


def test_due_tells_when_a_tick_matters() -> None:
    turns = Turns(LISTENER, 0.0)
    turns.start(0.0)
    assert turns.due == LISTENER.no_input_s
    assert turns.tick(7.9) == []
    assert turns.tick(8.0)
    over = Turns(replace(LISTENER, session_timeout_s=1.0), 0.0)
    over.tick(1.0)
    assert over.on_text_to_say(1.1) == []
    assert over.due == float("inf")


def test_a_call_that_has_ended_leaves_nothing_to_the_garbage_collector() -> None:
    gc.collect()
    turns = Turns(LISTENER, 0.0)
    turns.on_words("hello", True, 1.0)
    turns.tick(2.0)
    turns.on_stt_done(1, 2.0)
    turns.on_voice_started(2.5)
    turns.tick(400.0)
    del turns
    assert gc.collect() == 0


# The agent ends the call


def test_the_call_ends_when_the_last_answer_was_heard() -> None:
    lines = script(play(LISTENER, ANSWERED + "3.20 last 1\n5.00 finished 1", 6.0))
    assert lines == ["5.00 turn 1 finished", "5.00 give up hang_up"]


def test_an_agent_may_end_the_call_without_a_word() -> None:
    lines = script(play(LISTENER, THOUGHT + "2.90 last 1\n2.90 finished 1", 6.0))
    assert lines == ["2.90 turn 1 finished", "2.90 give up hang_up"]


def test_a_caller_who_speaks_over_the_last_answer_is_answered() -> None:
    happens = ANSWERED + "3.20 last 1\n3.50 voice\n3.80 final wait\n4.00 quiet\n4.70 done 2"
    lines = script(play(LISTENER, happens + "\n5.00 heard 2\n6.00 finished 2", 7.0))
    assert lines == [
        "3.50 pause",
        "3.80 cancel 1",
        "3.80 turn 1 interrupted",
        "4.60 end of turn 2 by silence",
        "4.70 generate 2 answer wait",
        "6.00 turn 2 finished",
    ]


def test_a_cough_over_the_last_answer_does_not_keep_the_call() -> None:
    happens = ANSWERED + "3.20 last 1\n3.50 voice\n3.90 quiet\n6.00 finished 1"
    assert script(play(LISTENER, happens, 7.0)) == [
        "3.50 pause",
        "4.05 resume, repeat",
        "6.00 turn 1 finished",
        "6.00 give up hang_up",
    ]


def test_a_last_answer_of_another_turn_is_nothing() -> None:
    happens = ANSWERED + "4.00 finished 1\n4.10 last 1\n4.20 last 2\n4.30 finished 1"
    assert script(play(LISTENER, happens, 5.0)) == ["4.00 turn 1 finished"]
