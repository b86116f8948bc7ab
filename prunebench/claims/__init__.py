"""Published efficiency claims, measured at the shape of their models: steps, cells, one table."""

from prunebench.claims.parts import run
from prunebench.claims.table import claim_lines, write_table

__all__ = ["claim_lines", "run", "write_table"]
