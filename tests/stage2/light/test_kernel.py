"""The kernel ridge is scikit-learn's, and its left-out predictions are those of real refits."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge as Reference

from agiqa.stage2.light.ridge import (
    KERNEL_ALPHAS,
    KernelRidge,
    fit_kernel_ridge,
    gaussian,
    usual_gamma,
)

TRAIN, VAL = 60, 25
GAMMA = 0.07


@pytest.fixture(scope="module")
def components() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(TRAIN + VAL, 6))
    return vectors.astype(np.float16).astype(np.float32)  # as a run keeps them


@pytest.fixture(scope="module")
def target(components: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(1).normal(size=TRAIN + VAL)
    return np.asarray(np.abs(components[:, 0]) - 1 + 0.1 * noise)[:, None]


def _fit(components: np.ndarray, target: np.ndarray, *alphas: float) -> tuple:
    return fit_kernel_ridge(
        components[:TRAIN], target[:TRAIN], GAMMA, alphas=alphas or KERNEL_ALPHAS
    )


def _predict(model: KernelRidge, components: np.ndarray, train: np.ndarray) -> np.ndarray:
    pair = (torch.from_numpy(part).double() for part in (components, train))
    return model.scores(gaussian(*pair, GAMMA)).numpy()


def test_equals_the_reference(components: np.ndarray, target: np.ndarray) -> None:
    ours, _ = _fit(components, target, 0.1)
    reference = Reference(alpha=0.1, kernel="rbf", gamma=GAMMA)
    reference.fit(components[:TRAIN], target[:TRAIN])
    expected = reference.predict(components[TRAIN:])
    np.testing.assert_allclose(
        _predict(ours, components[TRAIN:], components[:TRAIN]), expected, atol=1e-4
    )


def _known_to(anchors: np.ndarray | None, components: np.ndarray) -> np.ndarray:
    """The kernel between all rows, as the anchors know it, in double precision."""
    images = np.arange(len(components)) if anchors is None else anchors
    distances = ((components[:, None] - components[None, images]) ** 2).sum(-1)
    across = np.exp(-GAMMA * distances)
    return across if anchors is None else across @ np.linalg.solve(across[anchors], across.T)


@pytest.mark.parametrize("anchors", [None, np.arange(TRAIN), np.arange(0, TRAIN, 4)])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
def test_left_out_predictions_are_those_of_refits(
    components: np.ndarray,
    target: np.ndarray,
    anchors: np.ndarray | None,
    several: bool,
    grouped: bool,
) -> None:
    """Of an image or its whole group, with a constant for each data set where there are several."""
    alpha = 0.3
    dataset = np.arange(TRAIN) % 2 if several else None
    z = np.zeros((TRAIN, 0)) if dataset is None else np.eye(2)[dataset]
    wanted = target[:TRAIN] + (0 if dataset is None else 2 * dataset[:, None])
    groups = np.random.default_rng(4).integers(0, 15, TRAIN) if grouped else np.arange(TRAIN)
    ours, left_out = fit_kernel_ridge(
        components[:TRAIN], wanted, GAMMA, dataset, (alpha,), anchors, groups if grouped else None
    )
    kernel = _known_to(anchors, components)

    def refit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights of these rows, and the constants."""
        inverse = np.linalg.inv(kernel[np.ix_(rows, rows)] + alpha * np.eye(len(rows)))
        free = np.linalg.solve(z[rows].T @ inverse @ z[rows], z[rows].T @ inverse @ wanted[rows])
        return inverse @ (wanted[rows] - z[rows] @ free), free

    dual, constants = refit(np.arange(TRAIN))
    carriers = np.arange(TRAIN) if anchors is None else anchors
    assert ours.rows.tolist() == carriers.tolist()
    scores = _predict(ours, components[TRAIN:], components[:TRAIN])
    np.testing.assert_allclose(scores, kernel[TRAIN:, :TRAIN] @ dual, atol=2e-3)
    for group in groups[[0, 7, TRAIN - 1]]:
        rows, others = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        dual, free = refit(others)
        expected = kernel[np.ix_(rows, others)] @ dual + z[rows] @ (free - constants)
        np.testing.assert_allclose(left_out[rows], expected, atol=5e-3)


def test_the_penalty_is_chosen_by_the_images_left_out(
    components: np.ndarray, target: np.ndarray
) -> None:
    def value(left_out: np.ndarray) -> float:
        ranks = [np.argsort(np.argsort(each)) for each in (left_out, target[:TRAIN, 0])]
        return float(np.corrcoef(ranks)[0, 1] + np.corrcoef(left_out, target[:TRAIN, 0])[0, 1])

    every = [_fit(components, target, alpha) for alpha in KERNEL_ALPHAS]
    values = [value(left_out[:, 0]) for _, left_out in every]
    best = int(np.argmax(values))
    assert min(values) < max(values) - 0.001
    np.testing.assert_allclose(_fit(components, target)[0].dual, every[best][0].dual, atol=1e-6)


def test_the_usual_gamma_is_of_the_median_distance(components: np.ndarray) -> None:
    distances = ((components[:, None] - components[None]) ** 2).sum(-1)
    assert usual_gamma(components) == pytest.approx(0.8 / np.median(distances), rel=0.02)
    assert np.isfinite(usual_gamma(np.ones((5, 2), dtype=np.float32)))


@pytest.mark.parametrize("rows", [[-1, 2], [0, 60]])
def test_anchors_that_are_not_there_are_refused(rows: list[int]) -> None:
    tensors = {"rows": torch.tensor(rows, dtype=torch.int32), "dual": torch.ones(2, 1)}
    with pytest.raises(ValueError, match="of 60 anchors"):
        KernelRidge.from_tensors(tensors, 60)


@pytest.mark.parametrize("anchors", [None, np.arange(0, 20, 2)])
def test_images_that_are_all_the_same_do_not_break_it(anchors: np.ndarray | None) -> None:
    same = np.ones((20, 3), dtype=np.float32)
    model, left_out = fit_kernel_ridge(same, np.arange(20)[:, None] - 9.5, GAMMA, anchors=anchors)
    assert np.isfinite(_predict(model, same, same)).all()
    assert np.isfinite(left_out).all()


def test_several_targets_are_each_fitted_as_if_alone(
    components: np.ndarray, target: np.ndarray
) -> None:
    other = components[:, 1:2] * 2
    together, left_out = _fit(components, np.hstack([target, other]))
    for column, alone in enumerate((target, other)):
        one, said = _fit(components, alone)
        np.testing.assert_allclose(together.dual[:, [column]], one.dual, atol=1e-5)
        np.testing.assert_allclose(left_out[:, [column]], said, atol=1e-5)


def test_a_data_set_of_milder_raters_changes_nothing(
    components: np.ndarray, target: np.ndarray
) -> None:
    """Scores of half of the images are raised: the data set's own constant takes it all up."""
    dataset = np.arange(TRAIN) % 2
    raised = target[:TRAIN] + 5.0 * dataset[:, None]
    plain, plain_left_out = fit_kernel_ridge(
        components[:TRAIN], target[:TRAIN], GAMMA, dataset, (0.1,)
    )
    ours, left_out = fit_kernel_ridge(components[:TRAIN], raised, GAMMA, dataset, (0.1,))
    np.testing.assert_allclose(ours.dual, plain.dual, atol=1e-4)
    np.testing.assert_allclose(left_out, plain_left_out, atol=1e-4)
    blind, _ = fit_kernel_ridge(components[:TRAIN], raised, GAMMA, alphas=(0.1,))
    assert np.abs(blind.dual - plain.dual).max() > 1


def test_all_images_as_anchors_are_the_whole_kernel(
    components: np.ndarray, target: np.ndarray
) -> None:
    whole, whole_left_out = _fit(components, target)
    ours, left_out = fit_kernel_ridge(
        components[:TRAIN], target[:TRAIN], GAMMA, anchors=np.arange(TRAIN)
    )
    pair = (_predict(m, components[TRAIN:], components[:TRAIN]) for m in (ours, whole))
    np.testing.assert_allclose(*pair, atol=2e-3)
    np.testing.assert_allclose(left_out, whole_left_out, atol=2e-3)
