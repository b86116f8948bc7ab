"""A campaign file becomes settings, rows, cells, and every job's input. Imports no torch."""
