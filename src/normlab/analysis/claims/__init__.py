"""Claims judged: from finished runs and measurements to one of four words, by rule alone.

`judge` is the way in. It reads what the archive holds, and trains nothing.
"""

from normlab.analysis.claims.evidence import Evidence
from normlab.analysis.claims.judge import judge
from normlab.analysis.claims.words import MEANING

__all__ = ["MEANING", "Evidence", "judge"]
