"""What patients say, and what it means. Each row has a remark that says why it is there."""

from __future__ import annotations

from decimal import Decimal

import pytest

from careflow.core.numbers_spoken import digits_spoken, number, years
from careflow.core.script import QuestionKind
from careflow.core.understanding import Intent, Meaning, understand

ANSWERS = [
    # text, language, meaning, remark
    ("Yes.", "en", "yes", "the plain case"),
    ("YES", "en", "yes", "capitals"),
    ("Yes. Yes. Yes.", "en", "yes", "a triplicated transcript"),
    ("No No No", "en", "no", "triplicated without punctuation"),
    ("uh, well, yeah I guess so", "en", "yes", "fillers around a weak yes"),
    ("(music) yes", "en", "yes", "a non-speech tag is no word"),
    ("[coughing]", "en", "nothing", "only a tag"),
    ("", "en", "nothing", "silence"),
    ("   ", "en", "nothing", "blank"),
    ("...", "en", "nothing", "only punctuation"),
    ("yep", "en", "yes", "colloquial"),
    ("mhm", "en", "yes", "hummed"),
    ("of course I did", "en", "yes", "of course"),
    ("I did", "en", "yes", "verb only"),
    ("That's right", "en", "yes", "confirmation"),
    ("Speaking.", "en", "yes", "how people answer to their name"),
    ("this is she", "en", "yes", "the same, old style"),
    ("a little", "en", "yes", "a hedged yes to a symptom is a yes"),
    ("sometimes", "en", "yes", "as above"),
    ("no problem", "en", "yes", "a no that is none"),
    ("I feel fine", "en", "nothing", "no yes to a question about symptoms"),
    ("I'm okay", "en", "nothing", "as above"),
    ("all right", "en", "nothing", "as above"),
    ("estoy bien", "es", "nothing", "as above"),
    ("no", "en", "no", "plain"),
    ("Nope.", "en", "no", "colloquial"),
    ("No, I'm fine.", "en", "no", "'fine' does not contradict the no"),
    ("No, I'm okay, thank you", "en", "no", "politeness"),
    ("I did not", "en", "no", "verb negated"),
    ("I didn't", "en", "no", "contracted"),
    ("i didnt", "en", "no", "the apostrophe is lost in transcripts"),
    ("I haven't taken them yet", "en", "no", "a full sentence"),
    ("no I don't have any of that", "en", "no", "two negations, one meaning"),
    ("not today", "en", "no", "no verb"),
    ("I forgot", "en", "no", "an admission"),
    ("I don't think so", "en", "no", "hedged no"),
    ("none", "en", "no", "one word"),
    ("Nothing else", "en", "no", "closing words"),
    ("not really", "en", "no", "weak no"),
    ("I don't know", "en", "unsure", "not a no although it has don't"),
    ("not sure", "en", "unsure", "not a no"),
    ("Maybe yes", "en", "unsure", "hedged too far"),
    ("I can't remember", "en", "unsure", "memory"),
    ("No idea", "en", "unsure", "a no in the words only"),
    ("Yes, I didn't", "en", "nothing", "contradiction: ask again"),
    ("yes no", "en", "nothing", "contradiction"),
    ("No, wait, yes", "en", "yes", "a correction counts"),
    ("yes, I mean no", "en", "no", "a correction counts"),
    ("I can't find my glasses", "en", "nothing", "a negation about something else"),
    ("I don't sleep well", "en", "nothing", "as above"),
    ("the cat is on the roof again", "en", "nothing", "confused"),
    ("grblx fnord", "en", "nothing", "garbage"),
    ("Sí", "es", "yes", "accent"),
    ("si", "es", "yes", "no accent"),
    ("Sí, sí, claro", "es", "yes", "repeated"),
    ("Claro que sí", "es", "yes", "of course"),
    ("soy yo", "es", "yes", "to the name"),
    ("Creo que sí", "es", "yes", "hedged"),
    ("un poco", "es", "yes", "hedged symptom"),
    ("No", "es", "no", "plain"),
    ("No, gracias", "es", "no", "polite"),
    ("No, señora", "es", "no", "polite"),
    ("no, estoy bien", "es", "no", "I am fine"),
    ("no me las he tomado", "es", "no", "a full sentence"),
    ("todavía no", "es", "no", "not yet"),
    ("se me olvidó", "es", "no", "forgot"),
    ("nada", "es", "no", "nothing"),
    ("no sé", "es", "unsure", "not a no"),
    ("No me acuerdo", "es", "unsure", "memory"),
    ("quizás", "es", "unsure", "maybe"),
    ("no he dormido bien", "es", "nothing", "a negation about something else"),
    ("digo, no", "es", "no", "begins with the correction word"),
    ("sí, digo, no", "es", "no", "a correction counts"),
    ("sí", "en", "yes", "the other language is understood too"),
]


@pytest.mark.parametrize(("text", "language", "meaning", "remark"), ANSWERS)
def test_it_understands_yes_no_and_unsure(text: str, language: str, meaning: str, remark: str) -> None:
    assert understand(text, language, QuestionKind.YES_NO).meaning == meaning, remark


INTENTS = [
    ("Stop calling me", Intent.OPT_OUT, "plain"),
    ("take me off your list please", Intent.OPT_OUT, "list"),
    ("Please don't call here anymore", Intent.OPT_OUT, "polite"),
    ("never call me again", Intent.OPT_OUT, "never"),
    ("Stop.", Intent.OPT_OUT, "one word"),
    ("leave me alone", Intent.OPT_OUT, "angry"),
    ("Deje de llamarme", Intent.OPT_OUT, "Spanish"),
    ("quíteme de la lista", Intent.OPT_OUT, "Spanish list"),
    ("no me llamen más", Intent.OPT_OUT, "Spanish plural"),
    ("Don't call me now, I'm busy", Intent.CALL_LATER, "now is not for ever"),
    ("no me llame ahora", Intent.CALL_LATER, "the same in Spanish"),
    ("Call me later", Intent.CALL_LATER, "plain"),
    ("I'm busy now", Intent.CALL_LATER, "busy"),
    ("can you call back tomorrow", Intent.CALL_LATER, "tomorrow"),
    ("I can't talk right now", Intent.CALL_LATER, "no stroke sign, only busy"),
    ("not a good time", Intent.CALL_LATER, "idiom"),
    ("Llámeme más tarde", Intent.CALL_LATER, "Spanish"),
    ("estoy ocupada", Intent.CALL_LATER, "Spanish, feminine"),
    ("Wrong number", Intent.WRONG_PERSON, "plain"),
    ("you have the wrong number", Intent.WRONG_PERSON, "sentence"),
    ("There's no one here by that name", Intent.WRONG_PERSON, "by name"),
    ("she doesn't live here", Intent.WRONG_PERSON, "moved"),
    ("número equivocado", Intent.WRONG_PERSON, "Spanish"),
    ("aquí no vive", Intent.WRONG_PERSON, "Spanish moved"),
    ("She's not home", Intent.NOT_HERE, "out"),
    ("he is asleep", Intent.NOT_HERE, "asleep"),
    ("no está aquí", Intent.NOT_HERE, "Spanish"),
    ("Can I talk to a nurse?", Intent.PERSON, "a person"),
    ("I want to speak with a real person", Intent.PERSON, "a person"),
    ("nurse", Intent.PERSON, "one word"),
    ("quiero hablar con una enfermera", Intent.PERSON, "Spanish"),
    ("What is this about?", Intent.WHO, "question back"),
    ("Who is this?", Intent.WHO, "question back"),
    ("why are you asking me that", Intent.WHO, "question back"),
    ("are you a robot", Intent.WHO, "question back"),
    ("¿Quién habla?", Intent.WHO, "Spanish"),
    ("¿De qué se trata?", Intent.WHO, "Spanish"),
    ("What?", Intent.REPEAT, "one word"),
    ("Pardon?", Intent.REPEAT, "one word"),
    ("What did you say?", Intent.REPEAT, "question"),
    ("I can't hear you", Intent.REPEAT, "no no in it"),
    ("¿Cómo dijo?", Intent.REPEAT, "Spanish"),
    ("no entiendo", Intent.REPEAT, "no no in it"),
    ("hold on", Intent.HOLD, "wait"),
    ("Just a minute, let me get her", Intent.HOLD, "fetching"),
    ("un momento", Intent.HOLD, "Spanish"),
    ("I don't want to talk", Intent.DECLINE, "not today"),
    ("no me interesa", Intent.DECLINE, "Spanish"),
    ("Please leave a message after the tone", Intent.MACHINE, "a machine"),
    ("deje su mensaje después del tono", Intent.MACHINE, "a Spanish machine"),
    ("Español", Intent.SPANISH, "switch"),
    ("English please", Intent.ENGLISH, "switch"),
    ("Hello?", Intent.HELLO, "picking up"),
    ("¿Bueno?", Intent.HELLO, "picking up in Mexico"),
    ("bye bye", Intent.GOODBYE, "leaving"),
    ("adiós", Intent.GOODBYE, "leaving"),
    ("I'm not in pain", None, "not 'not in'"),
    ("I'm eating well", None, "eating is an answer, not an excuse"),
    ("I'll take them later", None, "later about medicine"),
    ("yes", None, "no wish"),
]


@pytest.mark.parametrize(("text", "intent", "remark"), INTENTS)
def test_it_recognises_wishes_that_outrank_the_question(
    text: str, intent: Intent | None, remark: str
) -> None:
    assert understand(text, "en", QuestionKind.YES_NO).intent is intent, remark


NUMBERS = [
    ("eight", "en", "8", "plain"),
    ("8", "en", "8", "digits"),
    ("an eight out of ten", "en", "8", "the scale is not a second number"),
    ("Three. Three. Three.", "en", "3", "triplicated"),
    ("zero", "en", "0", "nothing is a number"),
    ("nine hundred ninety nine", "en", "999", "the largest"),
    ("one hundred and twenty", "en", "120", "and"),
    ("a hundred and two point five", "en", "102.5", "decimal"),
    ("ninety eight point six", "en", "98.6", "temperature"),
    ("six and a half", "en", "6.5", "half"),
    ("twenty-one", "en", "21", "hyphen"),
    ("six or seven", "en", None, "two numbers are none"),
    ("quite bad", "en", None, "no number"),
    ("ocho", "es", "8", "plain"),
    ("treinta y ocho coma cinco", "es", "38.5", "decimal"),
    ("38,5", "es", "38.5", "decimal comma"),
    ("ciento dos punto cinco", "es", "102.5", "hundred"),
    ("veintidós", "es", "22", "accent"),
    ("novecientos noventa y nueve", "es", "999", "the largest"),
]


@pytest.mark.parametrize(("text", "language", "value", "remark"), NUMBERS)
def test_it_turns_number_words_into_digits(text: str, language: str, value: str | None, remark: str) -> None:
    assert number(text, language) == (Decimal(value) if value else None), remark


YEARS = [
    ("nineteen forty two", "en", {1942}, "as years are said"),
    ("1942", "en", {1942}, "digits"),
    ("one nine four two", "en", {1942}, "digit by digit"),
    ("nineteen oh five", "en", {1905}, "oh"),
    ("March fourth nineteen forty-two", "en", {1942}, "with the day"),
    ("two thousand and one", "en", {2001}, "thousand"),
    ("mil novecientos cuarenta y dos", "es", {1942}, "Spanish"),
    ("dos mil uno", "es", {2001}, "Spanish thousand"),
    ("uno nueve cuatro dos", "es", {1942}, "Spanish digits"),
    ("forty two", "en", set(), "two digits are not four"),
    ("nineteen forty one, no, nineteen forty two", "en", {1941, 1942}, "two years, the dialogue refuses"),
]


@pytest.mark.parametrize(("text", "language", "found", "remark"), YEARS)
def test_it_hears_years(text: str, language: str, found: set[int], remark: str) -> None:
    assert years(text, language) == found, remark


def test_free_words_are_kept_and_a_bare_no_is_no() -> None:
    assert understand("I need a refill of my pills", "en", QuestionKind.FREE).meaning is Meaning.WORDS
    assert understand("no, I'm fine, thank you", "en", QuestionKind.FREE).meaning is Meaning.NO
    assert understand("no, nada más, gracias", "es", QuestionKind.FREE).meaning is Meaning.NO
    assert understand("No, that's all.", "en", QuestionKind.FREE).meaning is Meaning.NO
    assert understand("everything is fine", "en", QuestionKind.FREE).meaning is Meaning.NO


def test_a_questions_own_phrases_answer_it() -> None:
    said = understand("I took them at eight", "en", QuestionKind.YES_NO, also_yes=("i took",))
    assert said.meaning is Meaning.YES
    assert (
        understand("just some of them", "en", QuestionKind.YES_NO, also_no=("some of them",)).meaning
        is Meaning.NO
    )


def test_telephone_numbers_are_spoken_digit_by_digit() -> None:
    assert digits_spoken("+12125550123", "en") == "two one two, five five five, zero one two three"
    assert digits_spoken("+12125550123", "es").endswith("cero uno dos tres")
