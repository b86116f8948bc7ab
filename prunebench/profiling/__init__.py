"""What a pruned model saves: parameters, MACs, memory and latency, measured beside the dense model.

Only jobs that measure import this package: it imports torch. Read `series.py` first.
"""

from prunebench.profiling.device import describe
from prunebench.profiling.flops import macs
from prunebench.profiling.memory import Peak, Watch, kv_cache_bytes, watch
from prunebench.profiling.points import Point
from prunebench.profiling.series import measure
from prunebench.profiling.sizes import size

__all__ = [
    "Peak",
    "Point",
    "Watch",
    "describe",
    "kv_cache_bytes",
    "macs",
    "measure",
    "size",
    "watch",
]
