"""Whose defaults hold, which backend, how gradients are accumulated, and which quantization is meant."""

import sys

import pytest

from quantization.modes import Mode, custom_mode
from twinquant.errors import UserError
from twinquant.flag_rules import TWIN_DEFAULTS, resolve_backend


@pytest.mark.parametrize(
    "requested, installed, dialect, expected",
    [
        (None, {"tensorflow", "pytorch"}, "tensorflow", "tensorflow"),
        (None, {"tensorflow", "pytorch"}, "pytorch", "pytorch"),
        (None, {"tensorflow"}, "tensorflow", "tensorflow"),
        ("pytorch", {"tensorflow", "pytorch"}, "tensorflow", "pytorch"),
        ("tensorflow", {"tensorflow", "pytorch"}, "pytorch", "tensorflow"),
    ],
)
def test_backend_without_a_note(requested, installed, dialect, expected):
    assert resolve_backend(requested, installed, dialect) == (expected, None)


@pytest.mark.parametrize(
    "installed, dialect, expected, absent",
    [({"pytorch"}, "tensorflow", "pytorch", "tensorflow"), ({"tensorflow"}, "pytorch", "tensorflow", "torch")],
)
def test_the_other_backend_is_said(installed, dialect, expected, absent):
    backend, note = resolve_backend(None, installed, dialect)
    assert backend == expected
    assert note == f"note: {absent} is not installed, so the backend is {expected} (--backend chooses)."


def test_a_missing_backend_is_refused():
    with pytest.raises(
        UserError, match=r"--backend=pytorch needs the package torch, not installed \(installed: tensor"
    ):
        resolve_backend("pytorch", {"tensorflow"})
    with pytest.raises(UserError, match="neither tensorflow nor torch is installed"):
        resolve_backend(None, set())


def test_installed_backends_are_looked_up_without_importing_them(monkeypatch):
    asked = []

    def find_spec(name):
        asked.append(name)
        return object() if name == "torch" else None

    monkeypatch.setattr("twinquant.flag_rules.find_spec", find_spec)
    loaded = set(sys.modules)
    assert resolve_backend(None)[0] == "pytorch"
    assert set(asked) == {"tensorflow", "torch"}
    assert set(sys.modules) == loaded


class TestDialect:
    @pytest.mark.parametrize("flag", ["--bert_model=bert-base-uncased", "--config-file={}/uncased/bert_config.json"])
    def test_pytorch_defaults(self, squad, notes_with, flag):
        settings = squad.parse("--do_train", flag.format(squad.folder))
        assert settings.dialect == "pytorch"
        assert {name: getattr(settings, name) for name in TWIN_DEFAULTS} == TWIN_DEFAULTS
        assert settings.scale_learning_rate is False and settings.backend is None
        assert settings.quant_mode is None
        [note] = notes_with(settings, "FasterTransformer's PyTorch script")
        for name, value in TWIN_DEFAULTS.items():
            assert f"{name} {value} instead of" in note
        assert notes_with(settings, "do_lower_case is False, but")

    def test_what_the_user_gave_stays(self, squad, notes_with):
        settings = squad.parse(
            "--do_train", "--bert_model=x", "--calibrator=mse", "--train_batch_size=4", "--learning_rate=1e-4",
            "--do_lower_case", "--if_quant=False", "--distillation_loss=tf", "--quant_mode=ft1",
        )  # fmt: skip
        assert (settings.calib_method, settings.train_batch_size, settings.learning_rate) == ("mse", 4, 1e-4)
        assert (settings.do_lower_case, settings.if_quant, settings.distillation_loss) == (True, False, "tf")
        [note] = notes_with(settings, "FasterTransformer's PyTorch script")
        assert "instead of" not in note

    def test_percentile_was_required(self, squad, notes_with):
        settings = squad.parse("--do_calib", "--bert_model=x", "--calibrator=percentile")
        assert settings.percentile == 99.99
        assert notes_with(settings, "--calibrator percentile without --percentile")
        given = squad.parse("--do_calib", "--bert_model=x", "--calibrator=percentile", "--percentile=99.9")
        assert not notes_with(given, "without --percentile")

    def test_quant_disable(self, squad, notes_with):
        settings = squad.parse("--do_train", "--bert_model=x", "--quant-disable")
        assert settings.if_quant is False
        assert "quant" not in notes_with(settings, "FasterTransformer's PyTorch script")[0]


class TestAccumulation:
    @pytest.mark.parametrize(
        "argv, micro_batch, steps",
        [
            (["--train_batch_size=32", "--gradient_accumulation_steps=4"], 8, 4),
            (["--train_batch_size=32", "--gradient-accumulation-steps=5"], 6, 5),
            (["--gradient_accumulation_steps=4", "--bert_model=x"], 8, 4),
            (["--train_batch_size=32", "--num_accumulation_steps=4"], 32, 4),
            (["--per_gpu_train_batch_size=32", "--gradient_accumulation_steps=4"], 32, 4),
            (["--model_type=bert", "--gradient_accumulation_steps=4"], 8, 4),
            (["--train_batch_size=32", "--gradient_accumulation_steps=1"], 32, 1),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
    )
    def test_batch_of_a_step(self, squad, notes_with, argv, micro_batch, steps):
        settings = squad.parse("--do_train", *argv)
        assert (settings.train_batch_size, settings.num_accumulation_steps) == (micro_batch, steps)
        notes = notes_with(settings, f"make one update of {micro_batch * steps} per process")
        assert len(notes) == (1 if "gradient" in "".join(argv) and steps > 1 else 0)

    def test_more_steps_than_examples(self, squad):
        with pytest.raises(UserError, match="--gradient_accumulation_steps 9 divides --train_batch_size, which is 8"):
            squad.parse("--do_train", "--gradient_accumulation_steps=9")


class TestQuantization:
    def test_single_settings_make_a_custom_mode(self, squad, notes_with):
        settings = squad.parse(
            "--do_train", "--if_quant", "--quant-per-tensor", "--fuse-qkv", "--narrow_range", "--wprec=4", "--aprec=6",
            "--quant-disable-keyword", "final_input", "softmax",
        )  # fmt: skip
        assert settings.quant_mode is None
        assert settings.custom_mode == {
            "per_channel": False,
            "fuse_qkv": True,
            "disabled_keywords": ("final_input", "softmax"),
            "narrow_range": True,
            "weight_bits": 4,
            "activation_bits": 6,
        }
        assert len(notes_with(settings, "without --quant_mode: the mode is the PyTorch script's")) == 1

    def test_one_setting_leaves_the_others_at_the_pytorch_scripts_defaults(self, squad):
        settings = squad.parse("--do_train", "--if_quant", "--fuse-qkv")
        assert settings.custom_mode == {
            "per_channel": True,
            "fuse_qkv": True,
            "disabled_keywords": (),
            "narrow_range": False,
            "weight_bits": 8,
            "activation_bits": 8,
        }

    def test_custom_mode_is_what_the_table_takes(self, squad):
        settings = squad.parse("--do_train", "--if_quant", "--fuse-qkv")
        mode = custom_mode(**settings.custom_mode)
        assert isinstance(mode, Mode) and mode.fuse_qkv and mode.per_channel

    def test_a_mode_overrides_single_settings_with_one_warning(self, squad, notes_with):
        settings = squad.parse("--do_train", "--if_quant", "--quant_mode=ft1", "--fuse-qkv", "--wprec=4")
        assert settings.quant_mode == "ft1" and settings.custom_mode is None
        assert settings.notes == (
            "warning: --fuse_qkv, --wprec have no effect beside --quant_mode=ft1, which sets all of that; leave "
            "--quant_mode out to use them.",
        )

    @pytest.mark.parametrize("mode", ["ft1", "ft2", "ft3", "trt", "ort"])
    def test_modes(self, squad, mode):
        assert squad.parse("--do_train", "--if_quant", f"--quant_mode={mode}").quant_mode == mode

    def test_quant_disable_beside_a_mode_is_honored(self, squad, notes_with):
        settings = squad.parse("--do_train", "--quant_mode=ft2", "--quant-disable", "--bert_model=x")
        assert settings.if_quant is False and settings.quant_mode == "ft2"
        assert notes_with(settings, "--quant_disable turns quantization off although --quant_mode=ft2 is given")

    @pytest.mark.parametrize(
        "argv, text",
        [
            (["--do_calib", "--if_quant"], "--if_quant has no effect while calibrating"),
            (["--do_calib", "--do_predict"], "prediction after calibration runs without quantization"),
            (["--do_train", "--quant_mode=ft2"], "--quant_mode has no effect without --if_quant."),
        ],
    )
    def test_half_a_request_is_noted(self, squad, argv, text):
        settings = squad.parse(*argv)
        assert len(settings.notes) == 1 and text in settings.notes[0]

    def test_an_explicit_float_run_is_no_news(self, squad):
        assert squad.parse("--do_train", "--quant_mode=ft2", "--if_quant=False").notes == ()
        assert squad.parse("--do_calib", "--do_predict", "--if_quant=False").notes == ()
