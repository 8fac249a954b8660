"""Whose defaults hold in run_glue.py, which scheme quantizes, the case of texts, and the Trainer's arguments."""

import pytest
from glue_files import GlueFiles, make_glue_files, notes_with

from twinquant.errors import UserError
from twinquant.flag_rules import resolve_backend
from twinquant.glue_rules import HUGGING_FACE_DEFAULTS


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


HF = "--task_name=MRPC --data_dir={}/glue_data/MRPC --output_dir={}/out "


class TestDialect:
    @pytest.mark.parametrize("flags", ["--model_type bert --init_checkpoint {}/plain", "--model_name_or_path {}/plain"])
    def test_hugging_face(self, glue, flags):
        settings = glue.parse_only(HF + flags + " --do_train")
        assert (settings.dialect, settings.backend, settings.scale_learning_rate) == ("hugging_face", None, False)
        assert {name: getattr(settings, name) for name in HUGGING_FACE_DEFAULTS} == HUGGING_FACE_DEFAULTS
        [note] = notes_with(settings, "so their defaults hold where a flag is not given")
        for name, value in HUGGING_FACE_DEFAULTS.items():
            given = name in settings.explicit
            assert (f"{name} {value}" in note) != given

    def test_what_the_user_gave_stays(self, glue):
        settings = glue.parse_only(
            HF + "--model_name_or_path {}/plain --do_train --train_batch_size=4 --weight_decay=0.1 --logging_steps=3 "
            "--warmup_ratio=0.2"
        )
        assert (settings.train_batch_size, settings.weight_decay, settings.log_freq) == (4, 0.1, 3)
        assert (settings.warmup_proportion, settings.warmup_steps) == (0.2, None)

    def test_accumulation_does_not_divide(self, glue):
        settings = glue.parse_only(HF + "--model_name_or_path {}/plain --do_train --gradient_accumulation_steps 4")
        assert (settings.train_batch_size, settings.num_accumulation_steps) == (8, 4)
        settings = glue.parse("--do_train", "--gradient_accumulation_steps=4")
        assert (settings.train_batch_size, settings.num_accumulation_steps) == (2, 4)

    def test_the_pytorch_script_counts_first(self, glue):
        settings = glue.parse_only(HF + "--model_name_or_path {}/plain --bert_model=x --do_train")
        assert (settings.dialect, settings.train_batch_size, settings.log_freq) == ("pytorch", 32, 50)
        [note] = notes_with(settings, "FasterTransformer's PyTorch script")
        # Where the two scripts have the same default there is nothing to tell.
        assert settings.learning_rate == 5e-5 and "learning_rate 5e-05" not in note and "calib_method max" in note

    @pytest.mark.parametrize(
        "installed, backend, noted",
        [
            ({"tensorflow", "pytorch"}, "pytorch", False),
            ({"pytorch"}, "pytorch", False),
            ({"tensorflow"}, "tensorflow", True),
        ],
        ids=["both", "torch", "tensorflow"],
    )
    def test_backend_of_hugging_face(self, installed, backend, noted):
        found, note = resolve_backend(None, installed, "hugging_face")
        assert found == backend
        assert note == (
            "note: torch is not installed, so the backend is tensorflow (--backend chooses)." if noted else None
        )


class TestScheme:
    @pytest.mark.parametrize("flag", ["--quant_scheme=q8bert", "--model_type=quant_bert"])
    def test_q8bert(self, glue, flag):
        settings = glue.parse("--do_train", "--do_eval", flag, "--start_step=200", "--ema_decay=0.99")
        assert (settings.quant_scheme, settings.if_quant, settings.quant_mode) == ("q8bert", True, "q8bert")
        assert (settings.start_step, settings.ema_decay, settings.custom_mode) == (200, 0.99, None)
        assert not notes_with(settings, "no effect")

    def test_q8bert_may_be_said_twice(self, glue):
        settings = glue.parse("--do_train", "--model_type=quant_bert", "--quant_scheme=q8bert", "--if_quant")
        assert settings.quant_scheme == "q8bert" and not notes_with(settings, "is taken as --quant_scheme")

    def test_dynamic(self, glue):
        settings = glue.parse("--do_eval", "--quant_scheme=dynamic", "--quantized_engine=fbgemm", "--per_row")
        assert (settings.quant_scheme, settings.if_quant, settings.backend) == ("dynamic", False, "pytorch")
        assert (settings.quantized_engine, settings.per_row, settings.dynamic_per_channel) == ("fbgemm", True, False)
        assert notes_with(settings, "--quant_scheme=dynamic is PyTorch's, so the backend is pytorch")

    def test_qnnpack_is_not_judged_before_the_processor_is_known(self, glue):
        settings = glue.parse("--do_eval", "--quant_scheme=dynamic", "--quantized_engine=qnnpack")
        assert not notes_with(settings, "slow")  # on Arm it is not; backends/pytorch/dynamic_torch.py says it on x86

    def test_dynamic_after_training_in_float(self, glue):
        settings = glue.parse("--do_train", "--do_eval", "--quant_scheme=dynamic", "--backend=pytorch")
        assert settings.do_train and not settings.if_quant and not notes_with(settings, "--quant_scheme")

    def test_dynamic_in_the_pytorch_scripts_command(self, glue):
        settings = glue.parse("--do_eval", "--quant_scheme=dynamic", "--bert_model=x")
        assert (settings.dialect, settings.if_quant) == ("pytorch", False)

    @pytest.mark.parametrize(
        "argv, text",
        [
            (["--do_train", "--quant_scheme=dynamic"], "--quant_scheme=dynamic has no effect without --do_eval or"),
            (
                ["--do_eval", "--quant_scheme=dynamic", "--quant_mode=ft1"],
                "--quant_mode has no effect without --if_quant.",
            ),
            (["--do_train", "--start_step=5"], "--start_step has no effect without --quant_scheme=q8bert."),
            (["--do_train", "--ema_decay=0.9"], "--ema_decay has no effect without --quant_scheme=q8bert."),
            (
                ["--do_eval", "--dynamic_engine=torchao", "--per_row"],
                "--dynamic_engine, --per_row have no effect without --quant_scheme=dynamic.",
            ),
        ],
    )
    def test_noted(self, glue, argv, text):
        assert len(notes_with(glue.parse(*argv), text)) == 1

    @pytest.mark.parametrize(
        "argv, sentence",
        [
            (
                ["--quant_scheme=dynamic", "--backend=tensorflow"],
                "--quant_scheme=dynamic contradicts --backend=tensorflow: dynamic quantization is PyTorch's; for "
                "TensorFlow, use --quant_mode=ft1 with --do_calib --if_quant instead.",
            ),
            (
                ["--quant_scheme=dynamic", "--if_quant"],
                "--if_quant contradicts --quant_scheme=dynamic, which quantizes",
            ),
            (
                ["--quant_scheme=dynamic", "--do_calib"],
                "--do_calib contradicts --quant_scheme=dynamic, which finds its",
            ),
            (
                ["--quant_scheme=dynamic", "--do_eval", "--fp16"],
                "--fp16 contradicts --quant_scheme=dynamic, which is compared with the model in float32",
            ),
            (
                ["--quant_scheme=dynamic", "--do_eval", "--eval_all_checkpoints"],
                "--eval_all_checkpoints contradicts --quant_scheme=dynamic, which quantizes one model",
            ),
            (
                ["--quant_scheme=dynamic", "--dynamic_engine=torchao", "--quantized_engine=x86"],
                "--quantized_engine=x86 contradicts --dynamic_engine=torchao, which has no engines to choose from",
            ),
            (
                ["--quant_scheme=q8bert", "--quant_mode=ft2"],
                "--quant_mode contradicts --quant_scheme=q8bert, which says",
            ),
            (
                ["--quant_scheme=q8bert", "--wprec=4", "--fuse-qkv"],
                "--fuse_qkv, --wprec contradict --quant_scheme=q8bert",
            ),
            (
                ["--quant_scheme=q8bert", "--quant_exclude=layer_0"],
                "--quant_exclude contradicts --quant_scheme=q8bert, which says",
            ),
            (
                ["--quant_scheme=dynamic", "--do_eval", "--quant_exclude=layer_0"],
                "--quant_exclude contradicts --quant_scheme=dynamic, which quantizes every nn.Linear",
            ),
            (["--quant_scheme=q8bert", "--do_calib"], "--do_calib contradicts --quant_scheme=q8bert, which finds its"),
            (["--quant_scheme=q8bert", "--if_quant=False"], "--if_quant=False contradicts --quant_scheme=q8bert"),
            (["--quant_scheme=q8bert", "--quant-disable"], "--quant_disable contradicts --quant_scheme=q8bert"),
            (
                ["--model_type=quant_bert", "--quant_scheme=static"],
                "--model_type quant_bert contradicts --quant_scheme=st",
            ),
            (
                ["--load_quantized_model"],
                "--load_quantized_model needs --quant_scheme=q8bert (or --model_type quant_bert)",
            ),
            (
                ["--load_quantized_model", "--quant_scheme=q8bert", "--do_train"],
                "--load_quantized_model contradicts --do_train: a model of int8 weights cannot be trained",
            ),
            (["--quant_scheme=int4"], "--quant_scheme takes one of static, q8bert, dynamic, found 'int4'."),
            (["--quantized_engine=mkl"], "--quantized_engine takes one of auto, x86, onednn, fbgemm, qnnpack, found"),
            (["--ema_decay=1"], "--ema_decay takes a number from 0 and below 1, found '1'."),
            (["--model_type=roberta"], "--model_type takes one of bert, quant_bert, found 'roberta'."),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_refused(self, glue, argv, sentence):
        with pytest.raises(UserError) as error:
            glue.parse("--do_eval", *argv)
        assert str(error.value).startswith(sentence)


class TestLowerCase:
    @pytest.mark.parametrize(
        "flags, lower, text",
        [
            # transformers 2: off unless given, but for what the tokenizer says
            ("--model_type bert --model_name_or_path {}/plain", False, "the default of the scripts with --model_type"),
            ("--model_type bert --model_name_or_path {}/plain --do_lower_case", True, ""),
            ("--model_type bert --model_name_or_path {}/lower", True, "as tokenizer_config.json beside"),
            (
                "--model_type bert --model_name_or_path bert-base-uncased",
                False,
                "is called uncased; --do_lower_case is",
            ),
            ("--model_type bert --model_name_or_path {}/bert-base-cased", False, "as tokenizer_config.json beside"),
            # transformers 4 and 5: the tokenizer's own
            ("--model_name_or_path {}/plain", True, "the default of BERT's tokenizer"),
            ("--model_name_or_path {}/lower", True, "as tokenizer_config.json beside"),
            ("--model_name_or_path {}/bert-base-cased", False, "as tokenizer_config.json beside"),
            ("--model_name_or_path bert-base-cased", False, "as the name bert-base-cased says"),
            ("--model_name_or_path bert-base-uncased", True, "as the name bert-base-uncased says"),
            ("--model_name_or_path {}/bert-base-cased --do_lower_case", True, "is called cased; --nodo_lower_case is"),
            # our own, and the PyTorch twin's
            ("--init_checkpoint {}/plain", True, ""),
            ("--init_checkpoint {}/bert-base-cased", False, "as tokenizer_config.json beside"),
            ("--init_checkpoint {}/lower --bert_model x", False, "but tokenizer_config.json beside"),
        ],
    )
    def test_which(self, glue, flags, lower, text):
        folder = glue.folder / "lower"
        folder.mkdir()
        for name, content in {
            "config.json": "{}",
            "vocab.txt": "",
            "tokenizer_config.json": '{"do_lower_case": true}',
        }.items():
            (folder / name).write_text(content)
        settings = glue.parse_only(HF + flags + " --do_train")
        assert settings.do_lower_case is lower
        said = [note for note in notes_with(settings, "do_lower_case") if "so its defaults" not in note]
        assert bool(said) is bool(text) and (not text or text in said[-1])

    @pytest.mark.parametrize(
        "content, found", [("{", "is not a JSON file"), ("[]", "must hold a JSON object, found list")]
    )
    def test_a_broken_tokenizer_config(self, glue, content, found):
        (glue.folder / "plain" / "tokenizer_config.json").write_text(content)
        with pytest.raises(UserError, match=f"tokenizer_config.json {found}"):
            glue.parse_only(HF + "--model_name_or_path {}/plain --do_train")


class TestModelOfAnEvaluationAlone:
    OLD = HF + "--model_type bert --model_name_or_path {}/plain --do_eval"

    def test_transformers_2_took_the_trained_model(self, glue):
        out = glue.folder / "out"
        out.mkdir()
        for name in ("config.json", "vocab.txt", "pytorch_model.bin"):
            (out / name).write_text("{}")
        settings = glue.parse_only(self.OLD)
        assert settings.init_checkpoint == str(out) and settings.vocab_file == f"{out}/vocab.txt"
        [note] = notes_with(settings, "the newest in --output_dir")
        assert note.startswith(
            f"note: the model is {out}, the newest in --output_dir: without --do_train, the script of"
        )

    def test_ours_is_its_newest_checkpoint(self, glue):
        newest = glue.folder / "out" / "model.ckpt-7"
        newest.mkdir(parents=True)
        for name in ("config.json", "vocab.txt"):
            (newest / name).write_text("{}")
        (glue.folder / "out" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
        assert glue.parse_only(self.OLD).init_checkpoint == str(newest)
        for other in (
            self.OLD + " --do_train",
            self.OLD.replace("--model_type bert", ""),
            self.OLD.replace("--model_name_or_path", "--init_checkpoint"),
        ):
            assert glue.parse_only(other).init_checkpoint == f"{glue.folder}/plain"

    def test_an_empty_output_folder_changes_nothing(self, glue):
        assert glue.parse_only(self.OLD).init_checkpoint == f"{glue.folder}/plain"

    def test_ours_alone_may_take_the_checkpoint_of_output_dir(self, glue):
        (glue.folder / "out").mkdir()
        (glue.folder / "out" / "model.ckpt-7.index").touch()
        (glue.folder / "out" / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
        files = " --bert_config_file={}/plain/config.json --vocab_file={}/plain/vocab.txt --do_eval"
        assert glue.parse_only(HF + files).init_checkpoint is None
        with pytest.raises(UserError, match="^--do_eval needs --init_checkpoint: none is given.$"):
            glue.parse_only(HF + files + " --model_type bert")


@pytest.mark.parametrize(
    "argv, text",
    [
        (["--bf16"], "--bf16 is taken as --use_fp16"),
        (["--optim=adamw_bnb_8bit"], "--optim=adamw_bnb_8bit has no effect: the optimizer is AdamW"),
        (["--use_fast_tokenizer=False"], "--use_fast_tokenizer has no effect"),
        (["--greater_is_better=False"], "--greater_is_better has no effect"),
        (["--report_to", "none", "wandb"], "--report_to wandb has no effect: results and losses go to the log"),
    ],
)
def test_the_trainers_arguments_are_noted(glue, argv, text):
    assert len(notes_with(glue.parse("--do_train", *argv), text)) == 1


@pytest.mark.parametrize(
    "argv, sentence",
    [
        (
            ["--dataset_name=imdb"],
            "--dataset_name is refused: the data must be local files: give --task_name with --data_d",
        ),
        (
            ["--predict_file=dev.tsv"],
            "--predict_file is refused: it is run_squad.py's; the files are --validation_file",
        ),
        (
            ["--lr_scheduler_type=cosine"],
            "--lr_scheduler_type is refused: the learning rate rises linearly, then falls",
        ),
        (["--optim=sgd"], "--optim=sgd is refused: the optimizer is AdamW; leave the flag out."),
        (["--label_smoothing_factor=0.1"], "--label_smoothing_factor is refused: the loss is the plain cross-entropy."),
        (["--model_revision=v2"], "--model_revision is refused: a hub name stands for its main revision"),
        (["--push_to_hub"], "--push_to_hub is refused: nothing is uploaded"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_trainers_arguments_are_refused(glue, argv, sentence):
    with pytest.raises(UserError) as error:
        glue.parse("--do_train", *argv)
    assert str(error.value).startswith(sentence)


@pytest.mark.parametrize("argument", ["--lr_scheduler_type=linear", "--model_revision=main", "--push_to_hub=False"])
def test_a_default_of_theirs_is_no_news(glue, argument):
    assert glue.parse("--do_train", argument).notes == glue.parse("--do_train").notes
