"""The bridge on a real websocket, with a telephone that plays on virtual time (reference/twilio section 5)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import structlog
from twilio.request_validator import RequestValidator
from websockets.exceptions import InvalidStatus

from bridge_hospital import AUTH_TOKEN, FIRST, PUBLIC_URL, SECOND, Hospital, refused_with
from bridge_kit import EMERGENCY, GOODBYE, MORNING, QUIET, TOKEN, Telephone, attempt, spoken_by_patient
from careflow.caller.conversation import ConversationConfig
from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import BargedIn, Heard


@pytest.fixture
async def hospital() -> AsyncIterator[Hospital]:
    async with Hospital().open() as hospital:
        yield hospital


class TestConversation:
    async def test_questions_are_asked_answered_and_the_goodbye_is_heard_to_its_end(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND: spoken_by_patient("NO")}
            assert await hospital.ended() is Ending.COMPLETE
        assert hospital.talks[0].answers == ["YES", "NO"]
        assert phone.heard == [(FIRST, True), (SECOND, True), (GOODBYE, True)]
        assert hospital.speech.closed == 1

    async def test_keys_answer_too(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE
        assert hospital.talks[0].answers == ["1", "2"]

    async def test_silence_is_asked_once_again(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: [[QUIET], spoken_by_patient("YES")], SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["YES", "2"]
        assert hospital.talks[0].reasks == 1

    async def test_the_audio_goes_to_speech_to_text_from_the_first_frame_silence_included(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.speaking.extend([QUIET] * 50)
            await hospital.until(lambda: hospital.speech.bytes_heard >= 8000)

    async def test_the_patient_may_interrupt_and_is_understood(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.speaking.extend([QUIET] * 20 + spoken_by_patient("YES"))
            phone.answers = {SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE
        assert hospital.talks[0].answers == ["YES", "2"]
        assert phone.heard[0] == (FIRST, False)

    async def test_a_cough_does_not_interrupt(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.speaking.extend([QUIET] * 20 + spoken_by_patient("COUGH", seconds=0.1))
            await hospital.until(lambda: phone.heard)
        assert phone.heard == [(FIRST, True)]
        assert BargedIn() not in hospital.trace

    async def test_partials_in_silence_are_not_taken_for_speech(self, hospital: Hospital) -> None:
        hospital.speech.chatter = True
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["1", "2"]
        assert hospital.speech.commits == 0


class TestTranscripts:
    async def test_repeated_final_words_do_not_answer_the_next_question(self, hospital: Hospital) -> None:
        hospital.speech.final_delays.append((0.3, 0.4, 0.9))
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["YES", "2"]

    async def test_words_that_come_too_late_do_not_answer_what_is_asked_then(
        self, hospital: Hospital
    ) -> None:
        hospital.speech.final_delays.append((4.5,))
        async with hospital.call() as phone:
            phone.answers = {FIRST: [spoken_by_patient("YES"), "9"], SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["9", "2"]
        assert Heard("") in hospital.trace
        assert Heard("YES", late=True) in hospital.trace
        assert Heard("YES") not in hospital.trace

    async def test_words_that_never_come_are_given_up_and_later_ones_are_still_understood(
        self, hospital: Hospital
    ) -> None:
        hospital.speech.final_delays.extend([(), (0.3,)])
        async with hospital.call() as phone:
            phone.answers = {
                FIRST: [spoken_by_patient("YES"), [QUIET], spoken_by_patient("YES AGAIN")],
                SECOND: "2",
            }
            await hospital.ended()
        assert hospital.talks[0].answers == ["YES AGAIN", "2"]

    async def test_a_red_flag_in_late_words_is_heard(self, hospital: Hospital) -> None:
        hospital.speech.final_delays.append((4.0,))
        async with hospital.call() as phone:
            phone.answers = {FIRST: [spoken_by_patient("PAIN")]}
            assert await hospital.ended() is Ending.ESCALATED

    async def test_a_red_flag_in_words_that_nobody_committed_is_heard(self, hospital: Hospital) -> None:
        """Speech-to-text commits by itself after 90 s (reference/elevenlabs, manual mode)."""
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            hospital.speech.listenings[0].says("there was PAIN")
            assert await hospital.ended() is Ending.ESCALATED

    async def test_the_wait_for_an_answer_does_not_run_out_while_the_patient_speaks(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {
                FIRST: [QUIET] * 270 + spoken_by_patient("WELL", seconds=3.0),
                SECOND: "2",
            }
            await hospital.ended()
        assert hospital.talks[0].answers == ["WELL", "2"]
        assert hospital.talks[0].reasks == 0

    async def test_endless_talk_in_the_background_does_not_hold_the_call(self, hospital: Hospital) -> None:
        hospital.speech.final_delays.extend([()] * 20)
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("TV", seconds=0.8) * 200}
            await hospital.until(lambda: hospital.talks and hospital.talks[0].reasks)


class TestAudioPath:
    @pytest.mark.parametrize("trouble", ["double", "swap"])
    async def test_doubled_and_swapped_frames_reach_the_ear_put_right(
        self, hospital: Hospital, trouble: str
    ) -> None:
        async with hospital.call() as phone:
            getattr(phone, trouble).update(range(3, 400, 7))
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["YES", "2"]

    async def test_a_lost_frame_is_not_hidden(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.lose.update(range(3, 400, 7))
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND: "2"}
            await hospital.ended()
        assert hospital.talks[0].answers == ["GARBLED", "2"]

    async def test_what_is_sent_stays_close_ahead_of_what_is_played(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            assert len(FIRST) * 0.1 == pytest.approx(1.2)
            assert phone.most_queued_seconds <= 1.0

    async def test_a_mark_that_never_returns_does_not_hold_the_call(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            phone.returns_marks = False
            phone.speaking.extend([QUIET] * 500 + spoken_by_patient("YES"))
            await hospital.until(lambda: hospital.talks and hospital.talks[0].answers == ["YES"])


class TestRedFlag:
    async def test_the_alert_is_stored_before_the_next_word_is_on_the_wire(self, hospital: Hospital) -> None:
        hospital.desk.alert_seconds = 1.5
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("PAIN")}
            assert await hospital.ended() is Ending.ESCALATED
        wire = [item for item in hospital.trace if isinstance(item, tuple)]
        stored = wire.index(("alert stored", AlertKind.RED_FLAG, "chest-pain"))
        spoken = wire.index(("media", EMERGENCY))
        assert stored < spoken
        assert [item for item in wire[stored:spoken] if item[0] == "media"] == []
        assert phone.heard[-1] == (EMERGENCY, True)

    async def test_a_store_that_is_down_does_not_keep_the_patient_from_the_emergency_wording(
        self, hospital: Hospital
    ) -> None:
        hospital.desk.refusals.extend(["alert"] * 6)
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("PAIN")}
            assert await hospital.ended() is Ending.ESCALATED
        assert phone.heard[-1] == (EMERGENCY, True)
        done = [item[0] for item in hospital.trace if isinstance(item, tuple) and item[0] != "media"]
        assert done == ["alert stored", "over"], "no checkpoint may say that the alert is stored before it is"

    async def test_an_alert_that_could_not_be_stored_is_stored_with_the_end(self) -> None:
        hospital = Hospital()
        hospital.config = replace(hospital.config, conversation=ConversationConfig(record_seconds=2))
        hospital.desk.alert_seconds = 10**6
        async with hospital.open(), hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("PAIN")}
            assert await hospital.ended() is Ending.ESCALATED
        assert hospital.desk.left_alerts == [(AlertKind.RED_FLAG, "chest-pain")]


class TestDoor:
    async def test_a_wrong_token_is_refused_before_anything_is_said(self, hospital: Hospital) -> None:
        async with hospital.socket() as socket:
            await Telephone(hospital.clock, socket.send, []).connect(token="guess")
            assert await refused_with(socket) == 1008
        assert hospital.talks == []

    async def test_a_socket_without_a_start_is_closed_in_time(self, hospital: Hospital) -> None:
        async with hospital.socket() as socket:
            await socket.send(json.dumps({"event": "connected"}))
            assert await refused_with(socket) == 1008
        assert (hospital.clock.now() - MORNING).total_seconds() >= 10

    async def test_audio_before_the_start_is_refused(self, hospital: Hospital) -> None:
        async with hospital.socket() as socket:
            await Telephone(hospital.clock, socket.send, []).send(event="stop", stop={})
            assert await refused_with(socket) == 1008

    async def test_a_second_socket_with_the_same_token_is_refused_and_the_first_lives_on(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: hospital.talks)
            async with hospital.socket() as socket:
                await Telephone(hospital.clock, socket.send, []).connect()
                assert await refused_with(socket) == 1008
            phone.answers = {FIRST: "1", SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE
        assert len(hospital.talks) == 1

    async def test_a_stream_with_a_new_token_takes_over_from_one_that_hangs(self, hospital: Hospital) -> None:
        async with hospital.socket() as hanging:
            await Telephone(hospital.clock, hanging.send, []).connect()
            await hospital.until(lambda: hospital.talks)
            hospital.desk.token, hospital.desk.stored = "second", attempt(checkpoint="1")
            async with hospital.call(token="second") as phone:
                phone.answers = {SECOND: "2"}
                assert await hospital.ended() is Ending.COMPLETE
        assert hospital.desk.ends == [Ending.COMPLETE]

    async def test_nonsense_is_ignored_and_too_much_of_it_breaks_the_conversation(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            for _ in range(20):
                await phone.send_text("{nonsense")
            await phone.send_text("x" * 100_000)
            await hospital.until(lambda: phone.heard)
            assert hospital.desk.ends == []
            for _ in range(60):
                await phone.send_text("{nonsense")
            assert await hospital.ended() == "broken"

    @pytest.mark.parametrize("path", ["", "/"])
    async def test_twilios_signature_lets_in(self, hospital: Hospital, path: str) -> None:
        signature = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL + path, {})
        async with hospital.socket(signature) as socket:
            await Telephone(hospital.clock, socket.send, []).connect()
            await hospital.until(lambda: hospital.talks)

    async def test_a_forged_signature_is_refused_at_the_upgrade(self, hospital: Hospital) -> None:
        signature = RequestValidator("other").compute_signature(PUBLIC_URL, {})
        with pytest.raises(InvalidStatus) as caught:
            async with hospital.socket(signature):
                pass
        assert caught.value.response.status_code == 403

    async def test_a_missing_signature_is_refused_too(self, hospital: Hospital) -> None:
        with pytest.raises(InvalidStatus):
            async with hospital.socket(None):
                pass


async def test_the_end_is_logged_once_with_ids_and_numbers_only(hospital: Hospital) -> None:
    with structlog.testing.capture_logs() as logs:
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND: spoken_by_patient("NO")}
            await hospital.ended()
            await hospital.until(lambda: logs)
    (line,) = [entry for entry in logs if entry["event"] == "media stream over"]
    assert line["attempt_id"] == "call1-1"
    assert line["how"] == "over"
    assert line["heard"] == 2
    assert line["frames"] > 100
    assert line["frames_lost"] == 0
    assert line["first_prompt_ms"] < 1000
    assert 0 < line["answer_ms_median"] < 3000
    assert "YES" not in str(logs)
    assert TOKEN not in str(logs)
    assert "Ada" not in str(logs)
