"""One table of what a phone can be, whatever an aligner, a corpus or a dictionary calls it."""

from __future__ import annotations

from s2f_rl.data.alignment import ARPABET, SILENCE

UNKNOWN = "unknown"
CLASSES = (SILENCE, *sorted(name.lower() for name in ARPABET), UNKNOWN)
"""What a phone can be: silence, the 39 of ARPAbet, and one for whatever has another name."""

_ALSO = {
    **dict.fromkeys(("", "sp", "spn", "nsn", "pau", "epi", "h#", "_", "_:", "+spn+", "+nsn+", "<sil>"), SILENCE),
    **{"ax": "ah", "ax-h": "ah", "ix": "ih", "axr": "er", "ux": "uw", "el": "l", "em": "m", "en": "n", "eng": "ng"},
    **{"dx": "t", "q": "t", "nx": "n", "hv": "hh"},
    **{"bcl": "b", "pcl": "p", "dcl": "d", "tcl": "t", "gcl": "g", "kcl": "k"},
}
"""Names of TIMIT, of the built-in corpus and of aligners beside ARPAbet's; reduced vowels and syllabic consonants count
as the full ones."""

_NUMBER = {name: k for k, name in enumerate(CLASSES)}


def phone_class(name: str) -> int:
    """Which of :data:`CLASSES` a phone is; capitals and stress digits count for nothing."""
    plain = name.strip().lower().rstrip("012")
    return _NUMBER.get(_ALSO.get(plain, plain), _NUMBER[UNKNOWN])
