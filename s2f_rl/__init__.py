"""s2f_rl: reinforcement learning for speech-driven 3D face animation on TorchRL.

Importing this package loads nothing heavy; import the part you need, for example
``from s2f_rl.envs import SpeechToFaceEnv``.

One legend for every docstring: B lanes (utterances in a batch), T frames, V vertices, A audio features per
frame, D width of an audio feature, H decoder width, S training subjects, E width of a reward feature.
"""

__version__ = "0.1.0"
