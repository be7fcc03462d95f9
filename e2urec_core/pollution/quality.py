"""How much each label is to be trusted, by cleanlab; the only file that imports it.

Source: Northcutt, Jiang and Chuang, Confident Learning (JAIR 2021); package cleanlab.
"""

from __future__ import annotations

import numpy

from e2urec_core.errors import MissingPackage
from e2urec_core.pollution.rule import Quality


def need_cleanlab() -> None:
    """Make sure that cleanlab is installed.

    Raises:
        MissingPackage: It is not.
    """
    from importlib.util import find_spec

    if find_spec("cleanlab") is None:
        raise MissingPackage("1 package is missing: cleanlab, which rates labels", hint="pip install 'e2urec[pollution]'")


def label_quality(labels: numpy.ndarray, yes: numpy.ndarray, quality: Quality) -> numpy.ndarray:
    """Quality of each label, 0 to 1, the lower the less it is expected, (row,).

    Args:
        labels: 0 or 1, (row,).
        yes: p(Yes) by a network that never saw the row, (row,).
        quality: Which of cleanlab's measures.

    Raises:
        MissingPackage: cleanlab is not installed.
    """
    need_cleanlab()
    from cleanlab.rank import get_label_quality_scores

    found = get_label_quality_scores(labels, _both(yes), method=quality, adjust_pred_probs=False)
    return numpy.clip(numpy.asarray(found, dtype=numpy.float64), 0, 1)


def is_doubtful(labels: numpy.ndarray, yes: numpy.ndarray) -> numpy.ndarray:
    """Which labels cleanlab takes for wrong, (row,): as many of each label as its estimate of the noise says, the least expected first.

    Where all rows bear one label there is nothing to estimate, and none is doubtful.

    Raises:
        MissingPackage: cleanlab is not installed.
    """
    need_cleanlab()
    from cleanlab.filter import find_label_issues

    if len(numpy.unique(labels)) < 2:
        return numpy.zeros(len(labels), dtype=bool)
    return numpy.asarray(find_label_issues(labels, _both(yes), filter_by="prune_by_noise_rate", n_jobs=1), dtype=bool)


def _both(yes: numpy.ndarray) -> numpy.ndarray:
    return numpy.stack([1 - yes, yes], axis=1)
