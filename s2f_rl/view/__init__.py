"""Faces on a page: one HTML file that plays mesh sequences with sound, from disk and without a network.

Floor plan:

- in front: ``page`` (the file), ``command`` (``s2f-rl view``, and a sentence of a corpus)
- what is on it: ``compress`` (motion as components), ``sound``, ``measures`` (by frame), ``curves`` (any series as SVG)

The page itself is ``page.html``, ``page.css`` and ``plots.css``, and six scripts: ``decode.js`` and ``faces.js``
(vertices of a frame), ``draw.js`` (WebGL2), ``orbit.js`` (the view), ``clock.js`` (the sound's time) and ``page.js``
(everything that is pressed).

Not here: films (:mod:`s2f_rl.render`), motion from speech (:mod:`s2f_rl.evaluation.animate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.view.command import cli_view, show_utterance
    from s2f_rl.view.curves import Curve, draw
    from s2f_rl.view.measures import Measured
    from s2f_rl.view.page import Table, write_page

_HOMES = {
    "Curve": "curves",
    "Measured": "measures",
    "Table": "page",
    "cli_view": "command",
    "draw": "curves",
    "show_utterance": "command",
    "write_page": "page",
}
__all__ = ["Curve", "Measured", "Table", "cli_view", "draw", "show_utterance", "write_page"]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
