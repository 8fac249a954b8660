"""Each backend's AdamW against its formula in NumPy float64."""

import importlib

import numpy as np
import pytest

from backends.base import OptimizerSettings, decays

SHAPES = {
    "bert/embeddings/word_embeddings": (7, 4),
    "bert/encoder/layer_0/output/dense/kernel": (5, 4),
    "bert/encoder/layer_0/output/dense/bias": (4,),
    "bert/encoder/layer_0/output/LayerNorm/gamma": (4,),
    "bert/encoder/layer_0/output/LayerNorm/beta": (4,),
    "cls/squad/output_weights": (2, 4),
    "cls/squad/output_bias": (2,),
}
WITHOUT_DECAY = [name for name in SHAPES if "LayerNorm" in name or "bias" in name]
STEPS = 5
BERT = OptimizerSettings()


def start():
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(size, steps=STEPS):
    rng = np.random.default_rng(1)
    return [[(size * rng.standard_normal(s)).astype(np.float32) for s in SHAPES.values()] for _ in range(steps)]


def rates(steps=STEPS):
    return [1e-2 * (step + 1) / steps for step in range(steps)]


def make(backend_name, settings=BERT):
    """The optimizer over fresh parameters; how an array becomes a tensor; how the parameters are read."""
    module = importlib.import_module(f"backends.{backend_name}.optimizer")
    if backend_name == "pytorch":
        import torch

        parameters = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start().items()}
        read = lambda: {name: p.detach().numpy().copy() for name, p in parameters.items()}  # noqa: E731
        return module.AdamW(parameters, settings), torch.tensor, read
    import tensorflow as tf

    parameters = {name: tf.Variable(array) for name, array in start().items()}
    return module.AdamW(parameters, settings), tf.constant, lambda: {n: p.numpy() for n, p in parameters.items()}


def reference(settings, all_gradients):
    """google-research/bert's AdamWeightDecayOptimizer behind tf.clip_by_global_norm."""
    w = {name: array.astype(np.float64) for name, array in start().items()}
    m = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    v = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    for rate, step in zip(rates(len(all_gradients)), all_gradients, strict=True):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in step))
        clip = min(1.0, settings.max_grad_norm / norm)
        for name, g in zip(SHAPES, step, strict=True):
            g = clip * g.astype(np.float64)
            m[name] = settings.beta1 * m[name] + (1 - settings.beta1) * g
            v[name] = settings.beta2 * v[name] + (1 - settings.beta2) * g**2
            update = m[name] / (np.sqrt(v[name]) + settings.epsilon)
            if name not in WITHOUT_DECAY:
                update = update + settings.weight_decay * w[name]
            w[name] = w[name] - rate * update
    return w, m, v


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (OptimizerSettings(), 3.0),
        (OptimizerSettings(), 1e-3),
        (OptimizerSettings(), 1e-6),
        (OptimizerSettings(beta1=0.7, beta2=0.95, epsilon=1e-3, weight_decay=0.3, max_grad_norm=0.25), 0.1),
        (OptimizerSettings(weight_decay=0.0), 0.05),
    ],
    ids=["clipped", "not-clipped", "near-epsilon", "other-constants", "no-decay"],
)
def test_five_steps_equal_the_formula(backend_name, settings, size):
    optimizer, tensor, read = make(backend_name, settings)
    for rate, step in zip(rates(), gradients(size), strict=True):
        assert optimizer.apply([tensor(g) for g in step], rate) is True
    weights, averages, squares = reference(settings, gradients(size))
    found, state = read(), optimizer.state()
    for name, before in start().items():
        # TensorFlow's kernel takes 1 - beta2 in float32, which is 1.3e-5 of 0.001 too small.
        moved = np.abs(weights[name] - before)
        assert (np.abs(found[name] - weights[name]) <= 2e-5 * moved + 2e-7 * np.maximum(1, np.abs(before))).all(), name
        np.testing.assert_allclose(state[f"{name}/adam_m"], averages[name], rtol=2e-5, atol=1e-7 * size, err_msg=name)
        np.testing.assert_allclose(state[f"{name}/adam_v"], squares[name], rtol=2e-5, err_msg=name)


def test_decay_alone_moves_only_what_decays(backend_name):
    """Without gradients a step is w -= learning_rate * weight_decay * w, and nothing where decay is left out."""
    optimizer, tensor, read = make(backend_name)
    optimizer.apply([tensor(np.zeros(shape, np.float32)) for shape in SHAPES.values()], 0.5)
    for name, before in start().items():
        share = 1.0 if name in WITHOUT_DECAY else 1 - 0.5 * 0.01
        np.testing.assert_allclose(read()[name], before * share, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30], ids=["nan", "infinite", "norm-overflows"])
def test_gradients_that_are_not_finite_change_nothing(backend_name, bad):
    optimizer, tensor, read = make(backend_name)
    first, second = gradients(1.0, 2)
    optimizer.apply([tensor(g) for g in first], 1e-2)
    before, state = read(), optimizer.state()
    broken = [g.copy() for g in second]
    broken[1][0, 0] = bad
    assert optimizer.apply([tensor(g) for g in broken], 1e-2) is False
    for name in SHAPES:
        np.testing.assert_array_equal(read()[name], before[name], err_msg=name)
    for name, array in optimizer.state().items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)


def test_state_restores_the_next_step_exactly(backend_name):
    optimizer, tensor, read = make(backend_name)
    other, _, read_other = make(backend_name)
    steps = gradients(0.3, 2)
    optimizer.apply([tensor(g) for g in steps[0]], 1e-2)
    other.apply([tensor(g) for g in steps[0]], 1e-2)
    other.load_state({name: array.copy() for name, array in optimizer.state().items()})
    for each in (optimizer, other):
        each.apply([tensor(g) for g in steps[1]], 1e-2)
    for name, array in read().items():
        np.testing.assert_array_equal(read_other()[name], array, err_msg=name)


@pytest.mark.parametrize("name", SHAPES)
def test_decay_exclusions(name):
    assert decays(name) is (name not in WITHOUT_DECAY)
