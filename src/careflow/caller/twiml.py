"""The documents that tell Twilio what a connected call does (TwiML, reference/twilio section 4)."""

from __future__ import annotations

from twilio.twiml.voice_response import Connect, Stream, VoiceResponse

from careflow.core.attempts import Attempt

# Spoken to whoever picked up, perhaps a machine: nothing about health, and no name.
_APOLOGIES = {
    "en": (
        "en-US",
        "We are sorry, this call was interrupted on our side. Somebody will call you back. Goodbye.",
    ),
    "es": (
        "es-US",
        "Lo sentimos, la llamada se interrumpió por nuestra parte. Le volveremos a llamar. Adiós.",
    ),
}


def connect(attempt: Attempt, public_url: str) -> str:
    """Open a media stream to the bridge. When it ends without our hanging up, ask `/twilio/resume` how to go on.

    Id and token ride in parameters: a query in a stream's URL is dropped or breaks the handshake (section 4).
    """
    stream = Stream(url=stream_url(public_url))
    stream.parameter(name="attempt", value=attempt.id)
    stream.parameter(name="token", value=attempt.stream_token)
    joined = Connect()
    joined.append(stream)
    response = VoiceResponse()
    response.append(joined)
    response.redirect(f"{public_url}/twilio/resume/{attempt.id}", method="POST")
    return str(response)


def apology(language: str) -> str:
    """Say that the call cannot go on, in the patient's language (English when we do not speak it), and hang up."""
    locale, words = _APOLOGIES.get(language.partition("-")[0].lower(), _APOLOGIES["en"])
    response = VoiceResponse()
    response.say(words, language=locale)
    response.hangup()
    return str(response)


def hang_up() -> str:
    """End the call."""
    response = VoiceResponse()
    response.hangup()
    return str(response)


def stream_url(public_url: str) -> str:
    """The media socket under the public URL: wss:// for https://, ws:// for the http:// of a local set-up."""
    return f"ws{public_url.removeprefix('http')}/twilio/media"
