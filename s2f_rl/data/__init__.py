"""Corpora of speech and moving faces: read, checked, converted. Importing this loads nothing heavy.

Floor plan:

- what everybody needs of a corpus: ``contract``; implement it for data of another kind
- a corpus on disk: ``corpus`` (:class:`FaceCorpus`, the one door: metres, at one rate) and ``utterance``; what they
  read with is ``description`` (``corpus.json``), ``clock``, ``rates``, ``units``, ``splits``, ``listing``,
  ``annotations``, ``transcripts``, ``templates``, ``motion_source``, ``regions``; ``content`` hashes all of it;
  ``sequences`` are meshes from elsewhere, ``motion_files`` predictions; ``lru`` and ``stored_features`` keep what is
  read or computed again and again
- which mesh it is: ``mesh_files`` (OBJ, PLY), ``glb_files``, ``meshes`` (any of them), ``mesh_identity``,
  ``check_mesh``
- ``own``: somebody's face, recordings and motion to a corpus
- what is wrong with it (``s2f-rl check``): ``check``, ``check_utterance``, ``faults``
- sound: ``audio`` in front of ``sound_decoding``, ``sound_containers``, ``sound_packets``, ``mp3_frames``, ``splicing``
  and ``mixing``; ``mel`` and ``mel_cache`` make the clips that a reward hears
- downloads into our layout (``s2f-rl prepare``): ``preparation``, ``from_vocaset``, ``from_biwi``, ``biwi_raw``
- motion that is coefficients of a rig: ``coefficients``; ``components``, the directions in which faces move
- phone timings of recordings (``s2f-rl align``): ``alignment``; ``phone_classes``, what a phone can be
- files of others, read without running their code, and our own, written whole or not at all: ``regular_files``,
  ``files``, ``temporary``, ``plain_pickle``, ``bounded_pickle``, ``tensor_files``, ``tensor_pickle``, ``soundness``;
  ``shared_tensors`` are kept once for all checkpoints of a folder
- ``synthetic``: the built-in corpus

Not here: networks that hear (:mod:`s2f_rl.models`), spoiled motion (:mod:`s2f_rl.rewards`), pictures
(:mod:`s2f_rl.render`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2f_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from s2f_rl.data.check import Fault, Faults, check_corpus, format_faults
    from s2f_rl.data.corpus import FaceCorpus
    from s2f_rl.data.from_biwi import prepare_biwi
    from s2f_rl.data.from_vocaset import prepare_vocaset
    from s2f_rl.data.mel import mel_clips
    from s2f_rl.data.utterance import Utterance

_HOMES = {
    "FaceCorpus": "corpus",
    "Fault": "check",
    "Faults": "check",
    "Utterance": "utterance",
    "check_corpus": "check",
    "format_faults": "check",
    "mel_clips": "mel",
    "prepare_biwi": "from_biwi",
    "prepare_vocaset": "from_vocaset",
}
__all__ = [
    "FaceCorpus",
    "Fault",
    "Faults",
    "Utterance",
    "check_corpus",
    "format_faults",
    "mel_clips",
    "prepare_biwi",
    "prepare_vocaset",
]
__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
