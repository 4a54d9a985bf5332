"""The error tree; every message names the key, file or row, the value and a remedy."""


class DonodError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(DonodError, ValueError):
    """A configuration value that cannot work, found before any model loads."""


class DataError(DonodError, ValueError):
    """A row or file that cannot be used; names the source and the row."""


class ScoringError(DonodError):
    """A score that cannot be computed for this model or these logits."""


class AuditError(DonodError):
    """A ranking that prefers corrupted rows more than the user allows."""


class StageError(DonodError):
    """A stage of the chain that cannot start, finish or hand over."""


class JudgeError(DonodError):
    """A judge that cannot go on, or fails for more rows than the user allows."""


class SamplingError(DonodError):
    """Answers that cannot be sampled; those that were stay stored."""


class EvaluationError(DonodError):
    """Tasks that cannot be found, loaded or judged."""
