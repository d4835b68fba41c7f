"""TwiML documents as verbs (reference/twilio section 4). Pure: `lab.live` carries the verbs out."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

from careflow.errors import CareflowError
from careflow.lab.orders import Hook, Method


class TwimlError(CareflowError):
    """The document cannot be carried out; `code` is Twilio's for the debugger."""

    def __init__(self, message: str, code: int = 12100) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`<Connect><Stream>`: blocks until our server closes the socket or the call ends."""

    url: str
    name: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    status: Hook | None = None
    action: Hook | None = None


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    loop: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: int


@dataclass(frozen=True, slots=True)
class Redirect:
    hook: Hook


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Keys until `finish_on_key`, `digits` of them, or `timeout` seconds without one; speech is not recognised here."""

    prompts: tuple[Say | Pause, ...]
    action: Hook | None
    timeout: int
    finish_on_key: str
    digits: int | None
    action_on_empty: bool


Verb = Stream | Say | Pause | Redirect | Hangup | Gather


def parse_twiml(document: str) -> list[Verb]:
    """The verbs in order. Raises TwimlError for bad XML, another root, an unknown verb or a bad attribute."""
    if "<!DOCTYPE" in document or "<!ENTITY" in document:
        raise TwimlError("the document has a DOCTYPE, which is not accepted")
    try:
        root = ElementTree.fromstring(document.strip())  # noqa: S314  without a DOCTYPE there is no entity to expand
    except ElementTree.ParseError as error:
        raise TwimlError(f"the document is not XML: {error}") from error
    if root.tag != "Response":
        raise TwimlError(f"the root is <{root.tag}>: <Response> is accepted")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Verb:
    match element.tag:
        case "Connect":
            return _connect(element)
        case "Gather":
            return _gather(element)
        case "Redirect":
            _only(element, "method")
            return Redirect(_hook(_text(element), element.get("method")))
        case "Hangup":
            _only(element)
            return Hangup()
        case "Say" | "Pause":
            return _prompt(element)
        case _:
            raise TwimlError(
                f"the verb <{element.tag}> is not known here: Connect, Gather, Hangup, Pause, Redirect and Say are"
            )


def _prompt(element: ElementTree.Element) -> Say | Pause:
    if element.tag == "Pause":
        _only(element, "length")
        return Pause(_number(element, "length", 1))
    if element.tag != "Say":
        raise TwimlError(f"<{element.tag}> cannot be nested in <Gather>: Say and Pause can")
    _only(element, "voice", "language", "loop")
    return Say(_text(element), _number(element, "loop", 1))


def _connect(element: ElementTree.Element) -> Stream:
    _only(element, "action", "method")
    if len(element) != 1 or element[0].tag != "Stream":
        raise TwimlError("<Connect> must hold exactly one <Stream>")
    stream = element[0]
    _only(stream, "url", "name", "track", "statusCallback", "statusCallbackMethod")
    url = stream.get("url", "")
    if not url.startswith(("wss://", "ws://")):
        raise TwimlError(f"the url {url!r} of <Stream> is not a wss:// URL")
    if stream.get("track", "inbound_track") != "inbound_track":
        raise TwimlError("a bidirectional <Stream> carries the inbound_track only")
    parameters = []
    for parameter in stream:
        if parameter.tag != "Parameter" or not parameter.get("name"):
            raise TwimlError("<Stream> holds <Parameter name= value=> only")
        name, value = parameter.get("name", ""), parameter.get("value", "")
        if len(name) + len(value) > 500:
            raise TwimlError(f"the <Parameter> {name!r} has more than 500 characters")
        parameters.append((name, value))
    return Stream(
        url=url,
        name=stream.get("name", ""),
        parameters=tuple(parameters),
        status=_optional_hook(stream, "statusCallback", "statusCallbackMethod"),
        action=_optional_hook(element, "action", "method"),
    )


def _gather(element: ElementTree.Element) -> Gather:
    digits = element.get("numDigits")
    return Gather(
        prompts=tuple(_prompt(child) for child in element),
        action=_optional_hook(element, "action", "method"),
        timeout=_number(element, "timeout", 5),
        finish_on_key=element.get("finishOnKey", "#"),
        digits=_number(element, "numDigits", 1) if digits else None,
        action_on_empty=element.get("actionOnEmptyResult", "false") == "true",
    )


def _only(element: ElementTree.Element, *accepted: str) -> None:
    for name in element.attrib:
        if name not in accepted:
            raise TwimlError(f"<{element.tag}> has the unknown attribute {name!r}", 12200)


def _text(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _number(element: ElementTree.Element, name: str, default: int) -> int:
    value = element.get(name, str(default))
    if not value.isdecimal():
        raise TwimlError(f"{name}={value!r} of <{element.tag}> is not a whole number", 12200)
    return int(value)


def _hook(url: str, method: str | None) -> Hook:
    if method not in (None, "GET", "POST"):
        raise TwimlError(f"the method {method!r} is not GET or POST", 12200)
    chosen: Method = "GET" if method == "GET" else "POST"
    return Hook(url, chosen)


def _optional_hook(element: ElementTree.Element, name: str, method: str) -> Hook | None:
    url = element.get(name)
    return _hook(url, element.get(method)) if url else None
