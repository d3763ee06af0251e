"""The model package's record, calibration, evaluation and the gate's statistics."""
