"""The projection is PCA, and the ridge is ridge: both against scikit-learn's own."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as ReferenceRidge

from agiqa.stage2.light.ensemble import BLOCK, fit_projection
from agiqa.stage2.light.ridge import ALPHAS, fit_ridge


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.normal(size=(60, 6)) * [9, 7, 5, 4, 3, 2]
    return low @ rng.normal(size=(6, 90)) + 0.01 * rng.normal(size=(60, 90)) + 5


@pytest.mark.parametrize("width", [90, 30])  # more features than images, and fewer
def test_components_are_those_of_pca(vectors: np.ndarray, width: int) -> None:
    vectors = vectors[:, :width]
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    ours = fit_projection(vectors, 5).apply(vectors)
    reference = PCA(5).fit_transform(scaled)
    assert ours.shape == (60, 5)
    assert np.mean(np.square(ours)) == pytest.approx(1, rel=1e-2)
    for column in range(5):  # up to sign and the common scale
        assert abs(np.corrcoef(ours[:, column], reference[:, column])[0, 1]) > 0.999
    ratio = ours.std(0) / reference.std(0)
    assert np.allclose(ratio, ratio[0], rtol=1e-3)


def test_more_components_than_there_are_and_constant_features() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 4))
    vectors[:, 2] = 7
    projection = fit_projection(vectors, 100)
    assert projection.apply(vectors).shape == (10, 4)
    assert np.isfinite(projection.apply(vectors)).all()


def test_many_images_are_projected_in_blocks(vectors: np.ndarray) -> None:
    projection = fit_projection(vectors, 5)
    many = np.tile(vectors, (BLOCK // len(vectors) + 2, 1))
    last = projection.apply(many)[-len(vectors) :]
    np.testing.assert_allclose(last, projection.apply(vectors), atol=1e-5)


def test_the_ridge_is_the_reference(vectors: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    mos = 3 + vectors[:, 0] + 0.1 * rng.normal(size=60)
    scores = mos[:, None]
    ours = fit_ridge(vectors[:40], scores[:40], vectors[40:], scores[40:], alphas=[10.0])
    reference = ReferenceRidge(alpha=10).fit(vectors[:40], mos[:40])
    expected = reference.predict(vectors[40:])
    np.testing.assert_allclose(ours.predict(vectors[40:])[:, 0], expected, rtol=1e-4)


def test_the_penalty_is_chosen_on_validation() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 200))
    mos = features[:, 0] + rng.normal(size=80)
    train, val = slice(0, 40), slice(40, 80)
    both = np.stack([mos, features[:, 1]], axis=1)  # the second is there without noise
    given = features[train], both[train], features[val], both[val]
    picked = fit_ridge(*given)
    values: dict[float, list[float]] = {}
    for alpha in ALPHAS:
        score = fit_ridge(*given, alphas=[alpha]).predict(features[val])
        values[alpha] = [
            float(spearmanr(score[:, target], both[val, target]).statistic) for target in (0, 1)
        ]
    for target in (0, 1):
        by_alpha = [by_target[target] for by_target in values.values()]
        assert values[picked.alpha[target]][target] == pytest.approx(max(by_alpha))
        assert min(by_alpha) < max(by_alpha)


@pytest.mark.parametrize("width", [700, 24])  # as wide as a vector of an LMM, and as they are
def test_zeros_beside_the_answers_change_nothing(width: int) -> None:
    """Probabilities of answers are filled up with zeros: of low rank, most columns constant."""
    rng = np.random.default_rng(0)
    mood = 2 * rng.normal(size=(300, 1, 1)) * np.linspace(-1, 1, 4)
    odds = np.exp(mood + rng.normal(size=(300, 6, 4)) / 2)
    answers = (odds / odds.sum(-1, keepdims=True)).reshape(300, 24).astype(np.float32)
    vectors = np.pad(answers, ((0, 0), (0, width - 24)))
    projection = fit_projection(vectors[:200], 96)
    assert np.isfinite(projection.components).all()
    components = projection.apply(vectors[200:])
    assert components[:, :18].std(axis=0).min() > 0.1  # 6 prompts, of 4 answers that sum to 1
    assert np.abs(components[:, 18:]).max() < 0.05
