"""What is quantized (modes), how a range is found (calibration) and how a value is rounded (numerics); no framework."""
