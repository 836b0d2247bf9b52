"""The paper's rule by hand."""

import numpy as np

from benchmarks._paper_rule import paper_quotas


def test_paper_quotas_follow_the_papers_rule_by_hand() -> None:
    """T = 30, N = 20: floor(30 * (7, 0, 2, 9) / 20) = (10, 0, 3, 13), and the last bin has 12 rows only."""
    votes, rows = np.array([7, -3, 2, 9]), np.array([50, 50, 50, 12])
    assert paper_quotas(votes, rows, num_units=20, target_size=30).tolist() == [10, 0, 3, 12]
