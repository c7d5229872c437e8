"""The record of a run: what was measured, on how many examples, with what code and on what machine.

A record is a frozen dataclass that goes to JSON and back. It carries the version of its schema, so that a
file of another version is refused instead of read wrongly.
"""

from trimtab.results.accuracy import Accuracy
from trimtab.results.environment import COMMAND_VARIABLE, Environment, user_command, without_absolute_path
from trimtab.results.record import SCHEMA_VERSION, Record
from trimtab.results.run_results import EvaluationResult, TrainingResult
from trimtab.results.sweep_records import CellRecord, FailedRun, RunRecord

__all__ = [
    "COMMAND_VARIABLE",
    "SCHEMA_VERSION",
    "Accuracy",
    "CellRecord",
    "Environment",
    "EvaluationResult",
    "FailedRun",
    "Record",
    "RunRecord",
    "TrainingResult",
    "user_command",
    "without_absolute_path",
]
