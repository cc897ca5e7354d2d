"""Speaks with espeak-ng and ends. Run as a script with nothing but the standard library.

espeak-ng keeps state between utterances, so the same text sounds different the second time; a process of its own for
each utterance, or for each list of them, makes it reproducible. Reads one JSON object from stdin, and writes one line
of JSON and then PCM for each utterance to stdout.
"""

from __future__ import annotations

import ctypes
import json
import sys

_RETRIEVAL = 2  # AUDIO_OUTPUT_SYNCHRONOUS with a callback: nothing is played
_PHONEME_EVENTS = 1
_PHONEME = 7
_RATE, _PITCH = 1, 3
_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


def main() -> None:
    """Speak what the request that comes on stdin (JSON) lists, and write sound and phone times to stdout."""
    request = json.loads(sys.stdin.buffer.read())
    library = ctypes.CDLL(request["library"])
    rate_hz = library.espeak_Initialize(_RETRIEVAL, 0, request["data"].encode(), _PHONEME_EVENTS)
    if rate_hz <= 0:
        sys.exit("espeak-ng found no voice data")
    pcm = bytearray()
    phones: list[tuple[str, int]] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
    def receive(samples, n_samples, events):  # type: ignore[no-untyped-def]
        if samples and n_samples > 0:
            pcm.extend(ctypes.string_at(samples, 2 * n_samples))
        k = 0
        while events[k].type != 0:
            if events[k].type == _PHONEME:
                phones.append((events[k].id.string.decode("utf-8", "replace"), events[k].sample))
            k += 1
        return 0

    library.espeak_SetSynthCallback(receive)
    for each in request["utterances"]:
        pcm.clear()
        phones.clear()
        if library.espeak_SetVoiceByName(each["voice"].encode()) != 0:
            sys.exit(f"espeak-ng has no voice {each['voice']}")
        library.espeak_SetParameter(_RATE, each["rate"], 0)
        library.espeak_SetParameter(_PITCH, each["pitch"], 0)
        text = each["text"].encode() + b"\0"
        library.espeak_Synth(text, len(text), 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        head = json.dumps({"rate_hz": rate_hz, "phones": phones, "n_bytes": len(pcm)})
        sys.stdout.buffer.write(head.encode() + b"\n" + bytes(pcm))


if __name__ == "__main__":
    main()
