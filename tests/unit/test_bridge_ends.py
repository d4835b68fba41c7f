"""How a stream ends at the bridge: trouble with a vendor, a hang-up, a handover to another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bridge_hospital import FIRST, SECOND, Hospital, refused_with
from bridge_kit import MORNING, QUIET, TOKEN, Telephone, attempt, spoken_by_patient
from careflow.caller.conversation import ConversationConfig
from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import DeafNow, Heard, MachineAnswered, RaiseAlert, Resumed
from careflow.errors import ProviderError


@pytest.fixture
async def hospital() -> AsyncIterator[Hospital]:
    async with Hospital().open() as hospital:
        yield hospital


class TestTrouble:
    async def test_without_speech_to_text_the_call_goes_on_by_key(self, hospital: Hospital) -> None:
        hospital.speech.listen_error = ProviderError("no", code="auth_error", permanent=True)
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND + ", by key": "2", FIRST + ", by key": "1"}
            assert await hospital.ended() is Ending.COMPLETE
        assert DeafNow() in hospital.trace

    async def test_speech_to_text_that_dies_in_the_middle_makes_the_call_go_on_by_key(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("YES"), SECOND + ", by key": "2"}
            await hospital.until(lambda: FIRST in [text for text, _ in phone.heard])
            hospital.speech.final_delays.append(())
            hospital.speech.listenings[0].die()
            await hospital.until(lambda: DeafNow() in hospital.trace)
            phone.answers[FIRST + ", by key"] = "1"
            assert await hospital.ended() is Ending.COMPLETE

    async def test_one_failure_of_text_to_speech_is_not_noticed(self, hospital: Hospital) -> None:
        hospital.speech.say_errors.append(ProviderError("busy", code="429"))
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)

    async def test_without_a_voice_the_conversation_is_broken(self, hospital: Hospital) -> None:
        hospital.speech.say_errors.extend([ProviderError("busy", code="429")] * 2)
        async with hospital.call():
            assert await hospital.ended() == "broken"

    async def test_an_end_that_the_store_refuses_at_first_is_recorded_later(self, hospital: Hospital) -> None:
        hospital.desk.refusals.extend(["over"] * 3)
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE

    async def test_a_checkpoint_that_cannot_be_stored_does_not_stop_the_conversation(
        self, hospital: Hospital
    ) -> None:
        hospital.desk.refusals.extend(["checkpoint"] * 2)
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE

    async def test_a_store_that_does_not_answer_leaves_no_patient_in_silence(
        self, hospital: Hospital
    ) -> None:
        hospital.desk.save_seconds = 60
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1"}
            await hospital.until(lambda: FIRST in [text for text, _ in phone.heard])
            asked_at = hospital.clock.now()
            await hospital.until(lambda: SECOND in [text for text, _ in phone.heard])
            assert (hospital.clock.now() - asked_at).total_seconds() < 10
        assert not [item for item in hospital.trace if isinstance(item, tuple) and item[0] == "saved"]

    async def test_words_are_heard_however_much_else_there_is_to_do(self) -> None:
        hospital = Hospital()
        hospital.config = replace(hospital.config, conversation=ConversationConfig(inbox_events=0))
        async with hospital.open(), hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            hospital.speech.listenings[0].says("there was PAIN")
            await hospital.until(
                lambda: ("alert stored", AlertKind.RED_FLAG, "chest-pain") in hospital.trace, seconds=5
            )


class TestEnds:
    async def test_a_stop_is_a_hang_up(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            await phone.send(event="stop", stop={"accountSid": "AC1", "callSid": "CA1"})
            assert await hospital.ended() is Ending.HUNG_UP

    @pytest.mark.parametrize("stopped", [True, False])
    async def test_a_red_flag_in_the_last_words_before_the_hang_up_is_heard(
        self, hospital: Hospital, stopped: bool
    ) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            phone.speaking.extend(spoken_by_patient("PAIN"))
            await hospital.until(lambda: not phone.speaking)
            if stopped:
                await phone.send(event="stop", stop={"accountSid": "AC1", "callSid": "CA1"})
                await hospital.ended()
        await hospital.ended()
        left = [item for item in hospital.trace if isinstance(item, tuple) and item[0] != "media"]
        assert [item[0] for item in left] == ["alert stored", "saved", "over"]

    async def test_a_socket_that_is_closed_without_stop_is_a_hang_up(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
        assert await hospital.ended() is Ending.HUNG_UP

    async def test_a_socket_that_breaks_leaves_the_question_to_the_desk(self, hospital: Hospital) -> None:
        async with hospital.socket() as socket:
            await Telephone(hospital.clock, socket.send, []).connect()
            await hospital.until(lambda: hospital.talks)
            socket.transport.abort()
            assert await hospital.ended() == "lost"

    @pytest.mark.parametrize(
        ("speech", "answers"),
        [(spoken_by_patient("NO BUT", seconds=60), []), (spoken_by_patient("YES") + [QUIET] * 10, ["YES"])],
        ids=["half a sentence", "a word and a short silence"],
    )
    async def test_only_what_was_said_to_its_end_before_the_socket_broke_is_an_answer(
        self, hospital: Hospital, speech: list[bytes], answers: list[str]
    ) -> None:
        async with hospital.socket() as socket:
            phone = hospital.phone = Telephone(hospital.clock, socket.send, hospital.trace)
            await phone.connect()
            live = asyncio.create_task(phone.live())
            hearing = asyncio.create_task(hospital._hear(socket, phone))
            await hospital.until(lambda: phone.heard)
            phone.speaking.extend(speech)
            began = hospital.clock.now()
            await hospital.until(
                lambda: not phone.speaking or (hospital.clock.now() - began).total_seconds() > 1
            )
            live.cancel()
            hearing.cancel()
            socket.transport.abort()
            assert await hospital.ended() == "lost"
        assert hospital.talks[0].answers == answers

    async def test_a_red_flag_in_the_last_words_before_the_socket_broke_is_heard(
        self, hospital: Hospital
    ) -> None:
        async with hospital.socket() as socket:
            phone = Telephone(hospital.clock, socket.send, [])
            await phone.connect()
            await hospital.until(lambda: hospital.talks)
            live = asyncio.ensure_future(phone.live())
            phone.speaking.extend(spoken_by_patient("PAIN"))
            await hospital.until(lambda: not phone.speaking)
            live.cancel()
            socket.transport.abort()
            assert await hospital.ended() == "lost"
        assert ("alert stored", AlertKind.RED_FLAG, "chest-pain") in hospital.trace

    async def test_a_shutdown_of_ours_records_no_end(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            assert hospital.server is not None
            hospital.server.should_exit = True
            await hospital.until(lambda: hospital.speech.closed)
            await hospital.clock.sleep(2)
        assert hospital.desk.ends == []

    async def test_a_conversation_goes_on_from_its_checkpoint(self, hospital: Hospital) -> None:
        hospital.desk.stored = attempt(checkpoint="1")
        async with hospital.call() as phone:
            phone.answers = {SECOND: "2"}
            assert await hospital.ended() is Ending.COMPLETE
        assert hospital.trace[0] == Resumed()
        assert phone.heard[0] == (SECOND, True)

    async def test_a_machine_gets_its_message_and_its_verdict_counts_once(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            for version, verdict in enumerate(["machine_start", "machine_end_beep", "machine_end_beep"], 1):
                hospital.desk.change(attempt(answered_by=verdict, version=version))
                await hospital.clock.sleep(0.3)
            await hospital.ended()
        verdicts = [item for item in hospital.trace if isinstance(item, MachineAnswered)]
        assert verdicts == [MachineAnswered(False), MachineAnswered(True)]

    async def test_a_cancelled_attempt_ends(self, hospital: Hospital) -> None:
        async with hospital.call() as phone:
            await hospital.until(lambda: phone.heard)
            hospital.desk.change(attempt(cancel_requested_at=MORNING, version=1))
            assert await hospital.ended() is Ending.HUNG_UP

    async def test_a_stream_that_another_process_took_over_ends_nothing(self, hospital: Hospital) -> None:
        hospital.desk.stored = attempt(stream_token="0.1.first")
        async with hospital.call():
            await hospital.until(lambda: hospital.talks)
            hospital.desk.change(attempt(stream_token="1.2.second", version=1))
            await hospital.clock.sleep(15)
        assert hospital.desk.ends == []
        assert hospital.desk.kept_at == []

    async def test_an_end_that_was_never_recorded_is_left_to_others(self) -> None:
        hospital = Hospital()
        hospital.config = replace(hospital.config, conversation=ConversationConfig(record_seconds=2))
        hospital.desk.refusals.extend(["over"] * 100)
        async with hospital.open(), hospital.call() as phone:
            phone.answers = {FIRST: "1", SECOND: "2"}
            await hospital.until(lambda: len(hospital.desk.refusals) < 98)
            await hospital.clock.sleep(5)
            kept = len(hospital.desk.kept_at)
            await hospital.clock.sleep(40)
        assert hospital.desk.ends == []
        assert len(hospital.desk.kept_at) == kept


class TestHandover:
    async def handed_over(self, hospital: Hospital) -> str:
        """What the bridge hands over when it is told to stop, at once."""
        assert hospital.bridge is not None
        await hospital.bridge.hand_over()
        assert hospital.desk.ends == []
        (text,) = hospital.desk.handed_over
        return text

    async def test_a_conversation_is_left_where_it_stands_and_its_socket_closed(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: "1"}
            await hospital.until(lambda: hospital.talks and hospital.talks[0].answers)
            assert await self.handed_over(hospital) == "1"
            await hospital.clock.sleep(3)
        assert phone.heard[-1] == (SECOND, False), "what is queued at Twilio is dropped with the stream"

    async def test_an_answer_that_is_being_spoken_is_understood_before_the_handover(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("YES")}
            await hospital.until(lambda: phone.heard)
            await hospital.clock.sleep(0.8)  # in the middle of the word
            assert await self.handed_over(hospital) == "1"
        assert hospital.talks[0].answers == ["YES"]

    async def test_who_speaks_on_and_on_is_waited_for_no_longer_than_a_stopping_process_has(
        self, hospital: Hospital
    ) -> None:
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("PAIN", seconds=60)}
            await hospital.until(lambda: phone.heard)
            await hospital.clock.sleep(1)
            began = hospital.clock.now()
            await self.handed_over(hospital)
            assert (hospital.clock.now() - began).total_seconds() < 7
        assert Heard("GARBLED", late=True) in hospital.trace, "a red flag in what was said until then counts"
        assert hospital.talks[0].answers == [], "half a sentence answers nothing: no, I have no pain, but"

    async def test_a_checkpoint_says_nothing_of_an_alert_that_is_not_stored(self, hospital: Hospital) -> None:
        """Or nobody would raise it again."""
        hospital.desk.alert_seconds = 30
        async with hospital.call() as phone:
            phone.answers = {FIRST: spoken_by_patient("PAIN")}
            await hospital.until(lambda: RaiseAlert(AlertKind.RED_FLAG, "chest-pain") in hospital.trace)
            assert await self.handed_over(hospital) == ""
        assert ("alert stored", AlertKind.RED_FLAG, "chest-pain") in hospital.trace, "it was waited for"

    async def test_a_socket_that_comes_later_is_sent_away_with_its_token_unused(
        self, hospital: Hospital
    ) -> None:
        assert hospital.bridge is not None
        await hospital.bridge.hand_over()
        async with hospital.socket() as socket:
            await Telephone(hospital.clock, socket.send, []).connect()
            assert await refused_with(socket) == 1012
        assert hospital.desk.token == TOKEN

    async def test_a_conversation_that_says_nothing_for_long_is_still_held(self, hospital: Hospital) -> None:
        async with hospital.call():
            await hospital.until(lambda: len(hospital.desk.kept_at) >= 2)  # nobody answers, nothing is saved
        first, second, *_ = hospital.desk.kept_at
        assert (second - first).total_seconds() <= 11
