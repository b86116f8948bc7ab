"""Numbers that several packages share."""

MIB = 2**20
"""Bytes of a MiB."""
Z95 = 1.959963984540054
"""Half of a 95 % interval in standard errors: the 97.5 % quantile of the normal distribution."""
