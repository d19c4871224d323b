"""Values of the literature's methods on one Jacobian, known from several sources."""

import keras
import numpy as np
import pytest

from keras_mtl import aggregation

JACOBIAN = np.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
GOLD = {
    "AlignedMTL": (aggregation.AlignedMTL(), [0.2133, 0.9673, 0.9673]),
    "ConFIG": (aggregation.ConFIG(), [0.1588, 2.0706, 2.0706]),
    "PCGrad": (aggregation.PCGrad(), [0.5848, 3.8012, 3.8012]),
    "GradVac": (aggregation.GradVac(), [0.5848, 3.8012, 3.8012]),
    "IMTLG": (aggregation.IMTLG(), [0.0767, 1, 1]),
    "Mean": (aggregation.Mean(), [1, 1, 1]),
    "Sum": (aggregation.Sum(), [2, 2, 2]),
    "MGDA": (aggregation.MGDA(), [0, 1, 1]),
    "DualProj": (aggregation.DualProj(), [0.5563, 1.1109, 1.1109]),
    "UPGrad": (aggregation.UPGrad(), [0.2929, 1.9004, 1.9004]),
    "FairGrad": (aggregation.FairGrad(), [0.0766, 0.9985, 0.9985]),
    "CAGrad": (aggregation.CAGrad(c=0.5, rescale=None), [0.1835, 1.2041, 1.2041]),
    "NashMTL": (aggregation.NashMTL(), [0.0542, 0.7061, 0.7061]),
}
GOLD_WEIGHTS = {
    "AlignedMTL": [0.5591, 0.4083],
    "PCGrad": [2.2222, 1.5789],
    "IMTLG": [0.5923, 0.4077],
    "MGDA": [0.6, 0.4],
}


@pytest.mark.parametrize("name", GOLD)
def test_update(name):
    aggregator, expected = GOLD[name]
    # The published values of UPGrad and DualProj are regularised by 1e-4.
    tolerance = 1e-3 if name in ("UPGrad", "DualProj") else 1.5e-4
    update = keras.ops.convert_to_numpy(aggregator(JACOBIAN))
    np.testing.assert_allclose(update, expected, atol=tolerance)


@pytest.mark.parametrize("name", GOLD_WEIGHTS)
def test_weights(name):
    weights = GOLD[name][0].weights(JACOBIAN @ JACOBIAN.T)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(weights), GOLD_WEIGHTS[name], atol=1.5e-4
    )
