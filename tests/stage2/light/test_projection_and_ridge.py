"""The projection is PCA, and the dual ridge is ridge: both against scikit-learn's own."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as ReferenceRidge

from agiqa.stage2.light.projection import fit_projection, moments
from agiqa.stage2.light.ridge import ALPHAS, Inner, Scatter, decompose, fit_ridge, solver_of_many


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    low = rng.normal(size=(60, 6)) * [9, 7, 5, 4, 3, 2]
    return low @ rng.normal(size=(6, 90)) + 0.01 * rng.normal(size=(60, 90)) + 5


@pytest.mark.parametrize("with_gram", [True, False])
@pytest.mark.parametrize("width", [90, 30])  # more features than images, and fewer
def test_components_are_those_of_pca(vectors: np.ndarray, width: int, with_gram: bool) -> None:
    vectors = vectors[:, :width]
    scaled = (vectors - vectors.mean(0)) / vectors.std(0)
    gram = decompose(scaled @ scaled.T) if with_gram else None
    projection = fit_projection(scaled, *moments(vectors), 5, gram)
    ours = projection.apply(vectors)
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
    mean, scale = moments(vectors)
    projection = fit_projection((vectors - mean) / scale, mean, scale, 100)
    assert projection.apply(vectors).shape == (10, 4)
    assert np.isfinite(projection.apply(vectors)).all()


def test_dual_ridge_equals_primal(vectors: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    train = (vectors - vectors.mean(0)) / vectors.std(0)
    mos = 3 + train[:, 0] + 0.1 * rng.normal(size=60)
    gram = decompose(train[:40] @ train[:40].T)
    sides = [train[:40, :50], train[:40, 50:]], [train[40:, :50], train[40:, 50:]]
    scores = mos[:, None]
    ours = fit_ridge(sides[0], gram, scores[:40], sides[1], scores[40:], alphas=[10.0])
    reference = ReferenceRidge(alpha=10, fit_intercept=False)
    reference.fit(train[:40], mos[:40] - mos[:40].mean())
    expected = reference.predict(train[40:]) + mos[:40].mean()
    np.testing.assert_allclose(ours.predict(train[40:])[:, 0], expected, rtol=1e-4)


def test_the_penalty_is_chosen_on_validation() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(80, 200))
    mos = features[:, 0] + rng.normal(size=80)
    train, val = slice(0, 40), slice(40, 80)
    gram = decompose(features[train] @ features[train].T)
    both = np.stack([mos, features[:, 1]], axis=1)  # the second is there without noise
    given = [features[train]], gram, both[train], [features[val]], both[val]
    picked = fit_ridge(*given)
    values: dict[float, list[float]] = {}
    for alpha in ALPHAS:
        said = fit_ridge(*given, alphas=[alpha]).predict(features[val])
        values[alpha] = [
            float(spearmanr(said[:, target], both[val, target]).statistic) for target in (0, 1)
        ]
    for target in (0, 1):
        best = max(each[target] for each in values.values())
        assert values[picked.alpha[target]][target] == pytest.approx(best)
    assert picked.alpha[0] != picked.alpha[1]


@pytest.mark.parametrize(("most", "kind"), [(200, Scatter), (20, Inner)])
def test_many_images_are_solved_another_way_to_the_same_end(most: int, kind: type) -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(300, 90)).astype(np.float32)
    parts, val = np.split(features[:250], [60], axis=1), np.split(features[250:], [60], axis=1)
    mos = (features[:, :2] + rng.normal(size=(300, 2))).astype(np.float32)
    solver = solver_of_many(parts, most)
    assert type(solver) is kind
    gram = decompose(features[:250] @ features[:250].T)
    scores = mos[:250], val, mos[250:]
    one, other = (fit_ridge(parts, each, *scores) for each in (gram, solver))
    np.testing.assert_array_equal(one.alpha, other.alpha)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)
    assert np.abs(one.weights).max() > 0.1


def test_a_penalty_too_small_for_the_precision_is_passed_over() -> None:
    rng = np.random.default_rng(4)
    train = (1000 * rng.normal(size=(60, 1)) @ rng.normal(size=(1, 80))).astype(np.float32)
    mos = train[:, :1] / 1000 + rng.normal(size=(60, 1)).astype(np.float32)
    given = [train[:40]], solver_of_many([train[:40]], 5), mos[:40], [train[40:]], mos[40:]
    ridge = fit_ridge(*given, alphas=(1e-9, 1e4))
    assert ridge.alpha == [1e4]
    assert np.isfinite(ridge.weights).all()


@pytest.mark.parametrize("width", [700, 24])  # as wide as a vector of an LMM, and as they are
def test_zeros_beside_the_answers_change_nothing(width: int) -> None:
    """Probabilities of answers are filled up with zeros: of low rank, most columns constant."""
    rng = np.random.default_rng(0)
    mood = 2 * rng.normal(size=(300, 1, 1)) * np.linspace(-1, 1, 4)
    odds = np.exp(mood + rng.normal(size=(300, 6, 4)) / 2)
    said = (odds / odds.sum(-1, keepdims=True)).reshape(300, 24).astype(np.float32)
    vectors = np.pad(said, ((0, 0), (0, width - 24)))
    train, rest = vectors[:200], vectors[200:]
    mean, scale = moments(train)
    projection = fit_projection((train - mean) / scale, mean, scale, 96)
    assert np.isfinite(projection.components).all()
    components = projection.apply(rest)
    assert components[:, :18].std(axis=0).min() > 0.1  # 6 prompts, of 4 answers that sum to 1
    assert np.abs(components[:, 18:]).max() < 0.05
    mos, val_mos = (each[:, :24] @ np.linspace(-1, 1, 24) for each in (train, rest))
    ridges = []
    for columns in (width, 24):
        own, others = ((each - mean)[:, :columns] / scale[:columns] for each in (train, rest))
        gram = decompose(own @ own.T)
        scores = mos[:, None], [others], val_mos[:, None]
        ridges.append(fit_ridge([own], gram, *scores, alphas=(100.0,)))
    assert not ridges[0].weights[24:].any()
    np.testing.assert_allclose(ridges[0].weights[:24], ridges[1].weights, atol=1e-5)
    assert np.abs(ridges[1].weights).max() > 0.01  # it did learn
