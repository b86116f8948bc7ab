"""Text: where it comes from, calibration samples, and contamination."""
