"""The parts of ``run.py`` and ``report.py``: matrix -> processes -> rows -> statistics -> page."""
