"""What each quantizer of a checkpoint costs, and which ones to leave in float."""
