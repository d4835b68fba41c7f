"""The bridge on a real websocket, with a telephone that plays on virtual time (reference/twilio section 5)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
import structlog
import uvicorn
from starlette.applications import Starlette
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge_kit import (
    EMERGENCY,
    GOODBYE,
    MORNING,
    QUESTIONS,
    QUIET,
    TOKEN,
    FakeDesk,
    FakeSpeech,
    Questionnaire,
    Telephone,
    attempt,
    spoken_by_patient,
)
from careflow.caller.bridge import BridgeConfig, MediaBridge
from careflow.caller.conversation import ConversationConfig
from careflow.clock import Pace, VirtualClock
from careflow.core.attempts import Ending
from careflow.core.checkins import AlertKind
from careflow.core.conversation import BargedIn, DeafNow, Heard, MachineAnswered, RaiseAlert, Resumed
from careflow.core.patients import Patient
from careflow.errors import ProviderError

PATIENT = Patient(id="p1", hospital_id="h1", given_name="Ada", family_name="Example", time_zone="UTC")
PUBLIC_URL, AUTH_TOKEN = "wss://caller.example/twilio/media", "auth-token"
SIGNATURE = RequestValidator(AUTH_TOKEN).compute_signature(PUBLIC_URL, {})
FIRST, SECOND = QUESTIONS


class Shelf:
    """The one patient, and the attempt as the desk has it."""

    def __init__(self, desk: FakeDesk) -> None:
        self._desk = desk

    async def patient(self, hospital_id: str, patient_id: str) -> Patient | None:
        return PATIENT if (hospital_id, patient_id) == ("h1", "p1") else None

    async def attempt(self, attempt_id: str) -> object:
        return self._desk.stored


class Hospital:
    """The bridge in a server on a free port, with everything that it talks to."""

    def __init__(self) -> None:
        self.clock = VirtualClock(MORNING)
        self.trace: list[object] = []
        self.desk = FakeDesk(self.clock, self.trace)
        self.speech = FakeSpeech(self.clock)
        self.talks: list[Questionnaire] = []
        self.config = BridgeConfig(url=PUBLIC_URL, auth_token=AUTH_TOKEN)
        self.port = 0
        self.bridge: MediaBridge | None = None
        self.server: uvicorn.Server | None = None
        self.phone: Telephone | None = None

    def talk(self, attempt: Any, patient: Patient) -> Questionnaire:
        self.talks.append(Questionnaire(self.trace, attempt.checkpoint))
        return self.talks[-1]

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Hospital]:
        store: Any = Shelf(self.desk)
        self.bridge = MediaBridge(
            self.desk, self.desk, store, self.speech, self.talk, self.clock, self.config
        )
        route = self.bridge.route()
        self.server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=[route]), port=0, log_level="error", lifespan="off")
        )
        tasks = [
            asyncio.create_task(self.server.serve()),
            asyncio.create_task(self.clock.run(lambda: Pace(speed=60, step=0.1))),
        ]
        try:
            while not self.server.started:
                await asyncio.sleep(0.005)
            self.port = self.server.servers[0].sockets[0].getsockname()[1]
            yield self
        finally:
            self.server.should_exit = True
            await tasks[0]
            tasks[1].cancel()

    def socket(self, signature: str | None = SIGNATURE) -> connect:
        signed = {"x-twilio-signature": signature} if signature else {}
        return connect(
            f"ws://127.0.0.1:{self.port}/twilio/media", compression=None, additional_headers=signed
        )

    @contextlib.asynccontextmanager
    async def call(self, **parameters: str) -> AsyncIterator[Telephone]:
        """A call with a patient at the telephone."""
        async with self.socket() as socket:
            phone = self.phone = Telephone(self.clock, socket.send, self.trace)
            await phone.connect(**parameters)
            tasks = [asyncio.create_task(phone.live()), asyncio.create_task(self._hear(socket, phone))]
            try:
                yield phone
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _hear(socket: ClientConnection, phone: Telephone) -> None:
        async for message in socket:
            assert isinstance(message, str), "Twilio accepts text frames only"
            phone.take(message)

    async def until(self, true: Callable[[], object], *, seconds: float = 90) -> None:
        """Wait in virtual time; fails when it never becomes true."""
        for _ in range(int(seconds / 0.05)):
            if true():
                return
            await self.clock.sleep(0.05)
        raise AssertionError(f"it never happened; the trace ends with {self.trace[-12:]}")

    async def ended(self) -> object:
        await self.until(lambda: self.desk.ends)
        return self.desk.ends[0]


@pytest.fixture
async def hospital() -> AsyncIterator[Hospital]:
    async with Hospital().open() as hospital:
        yield hospital


async def refused_with(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 5)
    return socket.close_code


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
