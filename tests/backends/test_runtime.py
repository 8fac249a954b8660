"""Precision, compilation, devices, and that one backend does not drag in the other's framework."""

import importlib
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy_bert import NumpyBert, ranges_of
from tiny_bert import FRAMEWORKS, make_backend, make_batch, relative_error, tiny_config, tiny_tensors

from backends import cpu, create_backend
from backends.base import RuntimeSettings
from backends.loss_scale import MANY, PERIOD, LossScale
from quantization.modes import get_mode
from quantization.ranges import select_ranges
from twinquant.errors import UserError

CONFIG = tiny_config(num_hidden_layers=1)
TENSORS = tiny_tensors(CONFIG)
BATCH = make_batch(CONFIG, [12, 7], labels=True)
NO_DROPOUT = RuntimeSettings(dropout=False)


def quantize(backend, mode_name="ft3"):
    reference = NumpyBert(CONFIG, TENSORS)
    reference(BATCH)
    mode = get_mode(mode_name)
    ranges = select_ranges(ranges_of(reference.seen, mode, 1), TENSORS, mode, "test")
    backend.set_quantization(mode, ranges)


def assert_close(found, expected, bound):
    for name in ("start_logits", "end_logits"):
        assert relative_error(found[name], expected[name]) < bound


@pytest.fixture
def bfloat16_cpu(monkeypatch):
    """A CPU that counts as having bfloat16 instructions; the frameworks emulate them where it has not."""
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)


@pytest.mark.usefixtures("bfloat16_cpu")
def test_half_precision_on_a_cpu_predicts_near_float32(backend_name):
    half = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu", half=True))
    whole = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu"))
    assert "bfloat16" in half.describe_device() and "float32" in whole.describe_device()
    found, expected = half.predict(BATCH), whole.predict(BATCH)
    assert found["start_logits"].dtype == np.float32
    assert_close(found, expected, 3e-2)  # bfloat16 keeps 8 bits
    assert relative_error(found["start_logits"], expected["start_logits"]) > 1e-5


@pytest.mark.usefixtures("without_graphs", "bfloat16_cpu")
def test_half_precision_on_a_cpu_trains(backend_name):
    """bfloat16 has float32's exponents, so no loss is scaled, and the weights stay float32."""
    ends = []
    for half in (True, False):
        backend = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu", half, dropout=False))
        losses = [backend.train_step([BATCH], 1e-3, step) for step in range(4)]
        assert losses[-1] < losses[0]
        assert "loss_scale" not in backend.optimizer_state()
        ends.append(backend.tensors())
    for name, array in ends[0].items():
        assert array.dtype == np.float32
        # Four steps of Adam move a weight by 0.01 at most.
        assert np.abs(array - ends[1][name]).max() < 0.01, name


@pytest.mark.usefixtures("without_graphs", "bfloat16_cpu")
def test_half_precision_keeps_the_quantizers(backend_name):
    half = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu", half=True))
    whole = make_backend(backend_name, CONFIG, TENSORS)
    for backend in (half, whole):
        quantize(backend)
    assert_close(half.predict(BATCH), whole.predict(BATCH), 0.1)


@pytest.mark.usefixtures("without_graphs")
def test_quantized_products_do_not_overflow_in_float16(backend_name):
    """As on a GPU: sums of 3072 products of two 8-bit integers would leave float16's range."""
    config = tiny_config(num_hidden_layers=1, intermediate_size=3072, hidden_act="relu")
    tensors, results = tiny_tensors(config), []
    reference = NumpyBert(config, tensors)
    reference(BATCH)
    ranges = select_ranges(ranges_of(reference.seen, get_mode("ft2"), 1, share=1.0), tensors, get_mode("ft2"), "test")
    for dtype in ("float16", "float32"):
        backend = make_backend(backend_name, config, tensors)
        backend.settings.product_dtype = getattr(importlib.import_module(FRAMEWORKS[backend_name]), dtype)
        backend.set_quantization(get_mode("ft2"), ranges)
        results.append(backend.predict(BATCH))
    assert_close(*results, 0.1)


def test_half_precision_that_would_not_pay_is_refused_loudly(backend_name, monkeypatch, caplog):
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    backend = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu", half=True))
    assert "--use_fp16 has no effect" in caplog.text
    assert "float32 matrix products" in backend.describe_device()


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_int8\n", True),
        ("processor : 0\nFeatures : fp asimd bf16 i8mm\n", True),
        ("flags : fpu avx2 avx512f\nbugs : bf16\n", False),
        (None, False),
    ],
    ids=["x86", "arm", "without", "no-such-file"],
)
def test_bfloat16_instructions_are_read_from_cpuinfo(tmp_path, cpuinfo, found):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert cpu.has_bfloat16(path) is found


@pytest.mark.parametrize(
    ("cpuinfo", "found"),
    [
        ("flags : fpu avx512f amx_bf16 amx_int8\n", True),
        ("flags : fpu avx512_vnni\nbugs : amx_int8\n", False),
        (None, False),
    ],
    ids=["amx", "without", "no-such-file"],
)
def test_int8_tiles_are_read_from_cpuinfo(tmp_path, cpuinfo, found):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert cpu.has_int8_tiles(path) is found


def test_xla_gives_the_same_logits():
    """Also fake-quantized: XLA must divide where the model divides."""
    pytest.importorskip("tensorflow")
    compiled = make_backend("tensorflow", CONFIG, TENSORS, runtime=RuntimeSettings(compile=True))
    plain = make_backend("tensorflow", CONFIG, TENSORS)
    assert_close(compiled.predict(BATCH), plain.predict(BATCH), 1e-5)
    for backend in (compiled, plain):
        quantize(backend)
    assert_close(compiled.predict(BATCH), plain.predict(BATCH), 1e-5)


@pytest.mark.slow
def test_xla_takes_the_same_training_step():
    pytest.importorskip("tensorflow")
    ends = []
    for compiled in (True, False):
        runtime = RuntimeSettings(compile=compiled, dropout=False)
        backend = make_backend("tensorflow", CONFIG, TENSORS, runtime=runtime)
        quantize(backend)
        losses = [backend.train_step([BATCH], 2e-4, step) for step in range(2)]
        ends.append((losses, backend.tensors()))
    np.testing.assert_allclose(ends[0][0], ends[1][0], rtol=1e-5)
    for name, array in ends[1][1].items():
        np.testing.assert_allclose(ends[0][1][name], array, rtol=1e-6, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_torch_compile_gives_the_same_logits():
    pytest.importorskip("torch")
    compiled = make_backend("pytorch", CONFIG, TENSORS, runtime=RuntimeSettings(compile=True))
    plain = make_backend("pytorch", CONFIG, TENSORS)
    for lengths in ([12, 7], [5, 9, 20]):  # the second without compiling anew
        batch = make_batch(CONFIG, lengths)
        assert_close(compiled.predict(batch), plain.predict(batch), 1e-5)
    for backend in (compiled, plain):
        quantize(backend)
    assert_close(compiled.predict(BATCH), plain.predict(BATCH), 1e-5)


@pytest.mark.parametrize("device", ["cuda:9", "tpu", "gpu:x", ""])
def test_a_device_that_is_not_there_is_a_user_error(backend_name, device):
    with pytest.raises(UserError, match=f"--device {device}: "):
        create_backend(backend_name, CONFIG, runtime=RuntimeSettings(device))


def test_the_cpu_can_be_asked_for(backend_name):
    assert " on cpu, " in make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu")).describe_device()


@pytest.mark.parametrize(("count", "said"), [(1, ", 1 thread, "), (3, ", 3 threads, ")], ids=["one", "three"])
def test_the_threads_that_compute_are_counted(backend_name, count, said, monkeypatch):
    """TensorFlow's are those of TF_NUM_INTRAOP_THREADS, and one for every usable core without it."""
    backend = make_backend(backend_name, CONFIG, TENSORS, runtime=RuntimeSettings("cpu"))
    if backend_name == "pytorch":
        import torch

        monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    else:
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", str(count))
        monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert said in backend.describe_device()
    if backend_name == "tensorflow":
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(count)))
        assert said in backend.describe_device()


def test_a_gpu_is_not_given_leave_to_round_products_to_tf32(backend_name):
    """Of the setting alone, since a CPU has no TF32."""
    framework = importlib.import_module(FRAMEWORKS[backend_name])
    if backend_name == "tensorflow":
        framework.config.experimental.enable_tensor_float_32_execution(True)
        create_backend(backend_name, CONFIG)
        assert not framework.config.experimental.tensor_float_32_execution_enabled()
    else:
        framework.set_float32_matmul_precision("high")
        create_backend(backend_name, CONFIG)
        assert framework.get_float32_matmul_precision() == "highest"
        assert not framework.backends.cuda.matmul.allow_tf32


def test_tensorflow_computes_where_the_device_says(pytestconfig):
    """As --device cpu on a machine with a GPU, or cuda:1: on another device than TensorFlow's default."""
    pytest.importorskip("tensorflow")
    command = [sys.executable, "tests/backends/second_device.py"]
    done = subprocess.run(command, cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "slots on 1" in done.stdout.splitlines() and "resumed equal" in done.stdout.splitlines()
    products = set(re.findall(r"\((?:Batch)?MatMul(?:V2)?\): .*device:(CPU:\d)", done.stdout + done.stderr))
    assert products == {"CPU:1"}


def test_unknown_backend_is_a_user_error():
    with pytest.raises(UserError, match="'jax', expected one of tensorflow, pytorch"):
        create_backend("jax", CONFIG)


IMPORTS = """
import sys
sys.modules[{absent!r}] = None  # as if it were not installed
from backends import create_backend
from checkpoints.config import BertConfig
from twinquant.errors import UserError
try:
    create_backend({wanted!r}, BertConfig(9, 4, 1, 1, 4))
except UserError as error:
    print("refused:", error)
else:
    print("built", sorted(name for name in ("tensorflow", "torch") if sys.modules.get(name)))
"""


@pytest.mark.parametrize(
    ("wanted", "absent", "printed"),
    [
        ("pytorch", "tensorflow", "built ['torch']"),
        ("tensorflow", "torch", "built ['tensorflow']"),
        ("pytorch", "torch", "refused: --backend pytorch: torch is not installed"),
        ("tensorflow", "tensorflow", "refused: --backend tensorflow: tensorflow is not installed"),
    ],
    ids=["pytorch-alone", "tensorflow-alone", "pytorch-absent", "tensorflow-absent"],
)
def test_a_backend_needs_its_own_framework_only(pytestconfig, wanted, absent, printed):
    framework = "torch" if wanted == "pytorch" else "tensorflow"
    if absent != framework:
        pytest.importorskip(framework)
    code = IMPORTS.format(wanted=wanted, absent=absent)
    done = subprocess.run([sys.executable, "-c", code], cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert printed in done.stdout, done.stderr


def test_loss_scale_of_float16():
    """Halves with every overflow, doubles after many good steps; constant where it is given, 1 where not needed."""
    scale = LossScale.create(half=True, fixed=0.0)
    first = scale.value
    scale.update(finite=False)
    assert scale.value == first / 2
    for _ in range(PERIOD):
        scale.update(finite=True)
    assert scale.value == first
    restored = LossScale.create(half=True, fixed=0.0)
    restored.from_array(scale.to_array())
    assert restored == scale
    fixed = LossScale.create(half=True, fixed=128.0)
    fixed.update(finite=False)
    assert fixed.value == 128.0
    assert LossScale.create(half=False, fixed=128.0).value == 1.0


def test_loading_begins_the_loss_scale_anew(backend_name):
    backend = make_backend(backend_name, CONFIG, TENSORS)
    backend.loss_scale = LossScale.create(half=True, fixed=0.0)
    backend.loss_scale.update(finite=False)
    backend.load(TENSORS)
    assert backend.loss_scale == LossScale.create(half=True, fixed=0.0) and backend.loss_scale.skipped == 0


@pytest.mark.parametrize(("fixed", "lowest_after"), [(128.0, 0), (0.0, 16)], ids=["fixed", "dynamic"])
def test_a_run_that_only_overflows_is_ended(fixed, lowest_after):
    """A dynamic scale may fall to 1 first; one good step in between starts the count anew."""
    scale = LossScale.create(half=True, fixed=fixed)
    for _ in range(lowest_after + MANY - 1):
        scale.update(finite=False)
    scale.update(finite=True)
    for _ in range(MANY - 1):
        scale.update(finite=False)
    assert scale.skipped == lowest_after + 2 * (MANY - 1)
    with pytest.raises(UserError, match=f"the gradients of {MANY} steps in a row overflowed, and none was applied"):
        scale.update(finite=False)


@pytest.mark.usefixtures("without_graphs")
def test_a_scale_that_always_overflows_is_no_silent_run(backend_name):
    """Its losses are finite, so nothing else stops it; float32's range stands in for float16's."""
    backend = make_backend(backend_name, CONFIG, TENSORS)
    backend.loss_scale = LossScale.create(half=True, fixed=3e38)
    with pytest.raises(UserError, match="--loss_scale 3e\\+38: .* lower it, or give 0"):
        for step in range(MANY):
            assert np.isfinite(backend.train_step([BATCH], 1e-3, step))
    assert step == MANY - 1


@pytest.mark.parametrize(
    ("half", "fixed", "value"),
    [(False, 0.0, 1.0), (True, 128.0, 128.0), (True, 0.0, 4096.0)],
    ids=["float32", "fixed", "dynamic"],
)
def test_a_loss_scale_is_restored_where_it_is_dynamic(half, fixed, value):
    """Not where the run goes on without one, or with another that was given; without one saved the first stays."""
    scale = LossScale.create(half, fixed)
    scale.from_array(np.array([4096.0, 7.0]))
    assert scale.value == value
    first = LossScale.create(half, fixed)
    first.from_array(None)
    assert first == LossScale.create(half, fixed)


def test_a_run_in_float16_goes_on_in_float32(backend_name):
    """From a GPU to a CPU: the saved scale must not stay in the gradients, where weight decay and clipping meet it."""
    unbroken, resumed = (make_backend(backend_name, CONFIG, TENSORS, runtime=NO_DROPOUT) for _ in range(2))
    unbroken.train_step([BATCH], 1e-3, 0)
    resumed.load(unbroken.tensors())
    resumed.load_optimizer_state(unbroken.optimizer_state() | {"loss_scale": np.array([65536.0, 1.0])})
    for backend in (unbroken, resumed):
        backend.train_step([BATCH], 1e-3, 1)
    for name, array in unbroken.tensors().items():
        np.testing.assert_array_equal(resumed.tensors()[name], array, err_msg=name)
