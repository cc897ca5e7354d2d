"""The names of ARKit's face coefficients (Apple, ``ARFaceAnchor.BlendShapeLocation``), each from 0 to 1."""

from __future__ import annotations

import re

_SIDES = ("Left", "Right")
_BOTH = {
    "browDown": _SIDES,
    "browInnerUp": ("",),
    "browOuterUp": _SIDES,
    "cheekPuff": ("",),
    "cheekSquint": _SIDES,
    "eyeBlink": _SIDES,
    "eyeLookDown": _SIDES,
    "eyeLookIn": _SIDES,
    "eyeLookOut": _SIDES,
    "eyeLookUp": _SIDES,
    "eyeSquint": _SIDES,
    "eyeWide": _SIDES,
    "jawForward": ("",),
    "jawLeft": ("",),
    "jawOpen": ("",),
    "jawRight": ("",),
    "mouthClose": ("",),
    "mouthDimple": _SIDES,
    "mouthFrown": _SIDES,
    "mouthFunnel": ("",),
    "mouthLeft": ("",),
    "mouthLowerDown": _SIDES,
    "mouthPress": _SIDES,
    "mouthPucker": ("",),
    "mouthRight": ("",),
    "mouthRollLower": ("",),
    "mouthRollUpper": ("",),
    "mouthShrugLower": ("",),
    "mouthShrugUpper": ("",),
    "mouthSmile": _SIDES,
    "mouthStretch": _SIDES,
    "mouthUpperUp": _SIDES,
    "noseSneer": _SIDES,
    "tongueOut": ("",),
}
ARKIT: tuple[str, ...] = tuple(name + side for name, sides in _BOTH.items() for side in sides)
"""All 52, in the order of the alphabet."""
_SHORT = (("l", "left"), ("r", "right"))


def arkit_name(name: str) -> str | None:
    """ARKit's name of a shape however it is spelt (``EyeBlinkLeft``, ``eye_blink_L``, ``eyeBlink.L``), else None."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for letter, side in _SHORT:
        if re.search(rf"[^A-Za-z0-9]{letter}$", name, re.IGNORECASE):
            plain = plain[:-1] + side
    return next((known for known in ARKIT if known.lower() == plain), None)
