"""PEFT's own tests, run against `SteeringConfig`. See docs/peft-suite.md."""
