"""The settings of the reports."""

from dp_assets.fields import Positive, Settings


class ReportSettings(Settings):
    """The reports. `baseline_samples` texts are sampled from the untrained base model, the baseline of epsilon zero."""

    baseline_samples: Positive
    examples: Positive
    mauve_buckets: Positive
    seed: int = 8
