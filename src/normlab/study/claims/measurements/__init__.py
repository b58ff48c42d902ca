"""What claims measure without training; torch is imported by what is called."""

from normlab.study.claims.measurements.invariances import INVARIANCES
from normlab.study.claims.measuring import Measurement

MEASUREMENTS: dict[str, Measurement] = {
    "invariances": INVARIANCES,
}
