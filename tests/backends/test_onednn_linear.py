"""oneDNN's products, which AMD's CPUs with AVX-512 use: against float64 and against the model without them."""

import numpy as np
import pytest
from numpy_bert import NumpyBert, ranges_of
from tiny_bert import make_backend, make_batch, relative_error, tiny_config, tiny_tensors

from backends import cpu
from backends.base import RuntimeSettings
from quantization.modes import get_mode
from quantization.ranges import select_ranges

torch = pytest.importorskip("torch")
onednn_linear = pytest.importorskip("backends.pytorch.onednn_linear")
if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    pytest.skip("this PyTorch has no oneDNN", allow_module_level=True)

CONFIG = tiny_config(num_hidden_layers=2)
TENSORS = tiny_tensors(CONFIG)
BATCH = make_batch(CONFIG, [12, 7, 12], labels=True)


@pytest.fixture
def backends(monkeypatch):
    """A backend with oneDNN's products and one without."""
    made = []
    for used in (True, False):
        monkeypatch.setattr(onednn_linear, "is_amd_with_avx512", lambda used=used: used)
        made.append(make_backend("pytorch", CONFIG, TENSORS, runtime=RuntimeSettings("cpu", dropout=False)))
        assert made[-1].settings.onednn is used
    return made


@pytest.mark.parametrize("shape", [(3, 7, 33), (1, 1, 5), (16, 40)], ids=str)
def test_product_and_gradients(shape):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    kernel = torch.randn(18, shape[-1], generator=generator).requires_grad_()
    gradient = torch.randn(*shape[:-1], 18, generator=generator)
    exact_x, exact_kernel = (tensor.detach().double().requires_grad_() for tensor in (x, kernel))
    found, expected = onednn_linear.OneDnnLinear.apply(x, kernel), exact_x @ exact_kernel.t()
    found.backward(gradient)
    expected.backward(gradient.double())
    for ours, theirs in ((found, expected), (x.grad, exact_x.grad), (kernel.grad, exact_kernel.grad)):
        assert ours.dtype == torch.float32 and ours.shape == theirs.shape
        assert relative_error(ours.detach().numpy(), theirs.detach().numpy()) < 1e-6


def test_a_kernel_that_is_not_trained_gets_no_gradient():
    x = torch.ones(2, 3, requires_grad=True)
    onednn_linear.OneDnnLinear.apply(x, torch.full((4, 3), 2.0)).sum().backward()
    assert (x.grad == 8.0).all()


def test_the_model_is_the_same(backends):
    found, expected = (backend.predict(BATCH) for backend in backends)
    for name in found:
        assert relative_error(found[name], expected[name]) < 1e-5


def test_fake_quantized_products_are_the_same_integers(backends):
    reference = NumpyBert(CONFIG, TENSORS)
    reference(BATCH)
    mode = get_mode("ft3")
    ranges = select_ranges(ranges_of(reference.seen, mode, CONFIG.num_hidden_layers), TENSORS, mode, "test")
    for backend in backends:
        backend.set_quantization(mode, ranges)
    found, expected = (backend.predict(BATCH) for backend in backends)
    for name in found:
        assert np.array_equal(found[name], expected[name])


def test_a_training_step_is_the_same(backends):
    losses = [[backend.train_step([BATCH], 1e-3, step) for step in range(2)] for backend in backends]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    first, second = (backend.tensors() for backend in backends)
    for name, array in first.items():
        assert relative_error(array, second[name]) < 1e-3, name  # Adam divides what is near zero


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [(RuntimeSettings("cpu"), True), (RuntimeSettings("cpu", half=True), False),
     (RuntimeSettings("cpu", compile=True), False)],
    ids=["float", "half", "compiled"],
)  # fmt: skip
def test_only_float_products_that_are_not_compiled_use_it(runtime, expected, monkeypatch):
    monkeypatch.setattr(onednn_linear, "is_amd_with_avx512", lambda: True)
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert make_backend("pytorch", CONFIG, TENSORS, runtime=runtime).settings.onednn is expected


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [("vendor_id : AuthenticAMD\nflags : avx2 avx512f\n", True), ("vendor_id : AuthenticAMD\nflags : avx2\n", False),
     ("vendor_id : GenuineIntel\nflags : fpu avx512f\n", False), (None, False)],
    ids=["amd", "amd-without", "intel", "no-such-file"],
)  # fmt: skip
def test_the_cpu_is_read_from_cpuinfo(cpuinfo, expected, tmp_path):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert cpu.is_amd_with_avx512(path) is expected
