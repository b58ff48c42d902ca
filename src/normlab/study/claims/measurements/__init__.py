"""What claims measure without training; torch is imported by what is called."""

from normlab.study.claims.measurements.depth import DEPTH
from normlab.study.claims.measurements.invariances import INVARIANCES
from normlab.study.claims.measurements.linear_stack import LINEAR_STACK
from normlab.study.claims.measurements.norm_time import NORM_TIME
from normlab.study.claims.measurements.output_change import OUTPUT_CHANGE
from normlab.study.claims.measuring import Measurement

MEASUREMENTS: dict[str, Measurement] = {
    "depth": DEPTH,
    "invariances": INVARIANCES,
    "linear_stack": LINEAR_STACK,
    "norm_time": NORM_TIME,
    "output_change": OUTPUT_CHANGE,
}
