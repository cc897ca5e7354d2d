"""What a run looks like: ``report.html`` in its folder, one file that needs no network.

Floor plan:

- ``write`` (:func:`write_run_report`) gathers and writes; ``page`` lays it out, ``charts`` draws curves
- ``motions``: three utterances of the validation split, before and after; ``pictures``: stills and films of them

Not here: reports of a reward (:mod:`s2f_rl.rewards.calibration`) or of an adaptation (:mod:`s2f_rl.adaptation`).
"""
