"""The JSON of the wire: what is taken, what is refused, and nothing else can happen."""

from __future__ import annotations

import contextlib
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roomserver.protocol import client, server
from roomserver.protocol.codec import MessageError, decode, encode, encode_cut
from roomserver.protocol.codes import CloseCode, ErrorCode


def refusal(text: str) -> MessageError:
    with pytest.raises(MessageError) as caught:
        decode(text)
    return caught.value


def test_unknown_fields_are_ignored() -> None:
    assert decode('{"type":"ping","t":3,"later":{"a":[1]}}') == client.Ping(3)


def test_fields_left_out_differ_from_those_that_are_null() -> None:
    change = decode('{"type":"subscribe","channels":null}')
    assert isinstance(change, client.Subscribe)
    assert change.channels is None
    assert change.levels is msgspec.UNSET


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.MALFORMED),
        ("null", ErrorCode.MALFORMED),
        ("[]", ErrorCode.MALFORMED),
        ("{}", ErrorCode.MALFORMED),
        ('{"type":1}', ErrorCode.MALFORMED),
        ('{"type":"ping","t":NaN}', ErrorCode.MALFORMED),
        ('{"type":"ping","t":1,"x":' + "[" * 50_000, ErrorCode.MALFORMED),
        ('{"type":"Ping","t":1}', ErrorCode.UNKNOWN_TYPE),
        ('{"type":"ping"}', ErrorCode.INVALID_MESSAGE),
        ('{"type":"ping","t":1e999}', ErrorCode.INVALID_MESSAGE),
        ('{"type":"ping","t":"1"}', ErrorCode.INVALID_MESSAGE),
        ('{"type":"setMix","faders":[true]}', ErrorCode.INVALID_MESSAGE),
        ('{"type":"setMix","faders":[' + ",".join(["1"] * 65) + "]}", ErrorCode.INVALID_MESSAGE),
        ('{"type":"savePreset","name":"a\\u0000b"}', ErrorCode.INVALID_MESSAGE),
    ],
)
def test_what_is_wrong_has_a_code(text: str, code: ErrorCode) -> None:
    assert refusal(text).code is code


def test_a_refusal_names_the_type_and_not_the_token() -> None:
    error = refusal('{"type":"registerListener","roomId":"A","roomToken":17}')
    assert error.kind == "registerListener"
    assert "roomToken" in str(error)


@settings(deadline=None)
@given(st.text())
def test_any_text_is_a_message_or_a_refusal(text: str) -> None:
    with contextlib.suppress(MessageError):
        decode(text)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("roomId", "roomToken", "channels", "from", "mix", "faders", "intervalMs", "t", "name")


@settings(deadline=None)
@given(
    st.sampled_from(["registerSource", "registerListener", "subscribe", "setMix", "ping", "stats"]),
    st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES),
)
def test_any_object_is_a_message_or_a_refusal(kind: str, fields: dict[str, object]) -> None:
    with contextlib.suppress(MessageError):
        assert type(decode(json.dumps({"type": kind, **fields}))).__struct_config__.tag == kind


def test_a_cut_message_is_whole_again_with_a_number_and_a_brace() -> None:
    text = encode_cut(server.Pong(t=1.5, received=2), "sent") + "1234567890123456}"
    assert json.loads(text) == {
        "type": "pong",
        "t": 1.5,
        "received": 2,
        "sent": 1234567890123456,
    }


def test_a_format_that_is_not_known_is_left_out_and_an_adaptive_buffer_is_null() -> None:
    started = server.StreamStarted(1, 2, ("L", "R"), 48000, 20, None)
    assert json.loads(encode(started)) == {
        "type": "streamStarted",
        "stream": 1,
        "channelCount": 2,
        "channelNames": ["L", "R"],
        "sampleRate": 48000,
        "frameMs": 20,
        "bufferMs": None,
    }


def test_every_error_has_a_close_code_of_the_protocol() -> None:
    for code in ErrorCode:
        assert code.close_code in CloseCode
