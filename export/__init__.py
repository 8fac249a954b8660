"""Checkpoints as ONNX models, and the proof that a model computes what the checkpoint does; needs no framework."""
