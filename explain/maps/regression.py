"""A map fitted to what hiding regions did: regression with a smooth prior.

The outcome of hiding a set of cells is modelled as the sum of their values. The map is the posterior
mean of a Gaussian process over cells whose mean is another map, scaled to the outcomes; it is the
idea of LIME (Ribeiro et al., 2016) and kernel SHAP (Lundberg and Lee, 2017) with a prior.
"""

import numpy as np

from .candidates import Mask, Values

LENGTH = 1.5  # of the prior's covariance, in cells
NOISE = 0.3  # variance of an outcome that cells do not explain, as a share of a typical outcome's


def fitted(prior: Values, masks: Mask, falls: Values) -> Values:
    """Return the map of one decision, (rows, columns), in units of the outcomes.

    Args:
        prior: (rows, columns), in any unit: where the decision's evidence is thought to be.
        masks: (sets, rows, columns): the cells that were hidden.
        falls: (sets,): how far the decision's log-odds fell.
    """
    places = np.argwhere(np.ones(prior.shape, dtype=bool))
    distances = ((places[:, None] - places) ** 2).sum(axis=2)
    covariance = np.exp(-distances / (2 * LENGTH**2))
    hidden, mean = masks.reshape(len(masks), -1).astype(np.float64), prior.ravel()
    expected = hidden @ mean
    scale = max(0.0, float(expected @ falls)) / max(float(expected @ expected), 1e-12)
    outcomes = hidden @ covariance @ hidden.T
    outcomes += NOISE * outcomes.trace() / len(outcomes) * np.eye(len(outcomes))
    gain = covariance @ hidden.T @ np.linalg.solve(outcomes, falls - scale * expected)
    found: Values = (scale * mean + gain).reshape(prior.shape)
    return found
