"""The training loop, calibration and prediction that both backends share."""
