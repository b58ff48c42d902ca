"""What claims measure without training; torch is imported by what is called."""

from normlab.apps.claims.measurement import Measurement
from normlab.apps.claims.measurements.depth import DEPTH
from normlab.apps.claims.measurements.invariances import INVARIANCES
from normlab.apps.claims.measurements.linear_stack import LINEAR_STACK
from normlab.apps.claims.measurements.norm_time import NORM_TIME
from normlab.apps.claims.measurements.output_change import OUTPUT_CHANGE

MEASUREMENTS: dict[str, Measurement] = {
    "depth": DEPTH,
    "invariances": INVARIANCES,
    "linear_stack": LINEAR_STACK,
    "norm_time": NORM_TIME,
    "output_change": OUTPUT_CHANGE,
}
