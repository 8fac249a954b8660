import pytest

from checkpoints import names

LAYER = "bert/encoder/layer_11/"


@pytest.mark.parametrize(
    ("hugging_face", "canonical", "transpose"),
    [
        ("bert.embeddings.word_embeddings.weight", "bert/embeddings/word_embeddings", False),
        ("bert.encoder.layer.11.attention.self.query.weight", LAYER + "attention/self/query/kernel", True),
        ("bert.encoder.layer.11.attention.output.dense.bias", LAYER + "attention/output/dense/bias", False),
        ("bert.encoder.layer.11.attention.output.LayerNorm.weight", LAYER + "attention/output/LayerNorm/gamma", False),
        ("bert.encoder.layer.11.output.LayerNorm.bias", LAYER + "output/LayerNorm/beta", False),
        ("bert.pooler.dense.weight", "bert/pooler/dense/kernel", True),
        ("qa_outputs.weight", "cls/squad/output_weights", False),
        ("classifier.bias", "output_bias", False),
    ],
)
def test_names_translate_both_ways(hugging_face, canonical, transpose):
    assert names.canonical_name(hugging_face) == (canonical, transpose)
    assert names.hugging_face_name(canonical) == hugging_face
    assert names.is_transposed(canonical) == transpose


@pytest.mark.parametrize(
    ("variant", "standard"),
    [
        ("embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.weight"),
        ("encoder.layer.3.output.dense.weight", "bert.encoder.layer.3.output.dense.weight"),
        ("pooler.dense.bias", "bert.pooler.dense.bias"),
        ("bert.embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.encoder.layer.3.output.LayerNorm.beta", "bert.encoder.layer.3.output.LayerNorm.bias"),
        ("module.bert.pooler.dense.weight", "bert.pooler.dense.weight"),
        ("module._orig_mod.qa_outputs.bias", "qa_outputs.bias"),
    ],
)
def test_other_spellings_mean_the_same(variant, standard):
    assert names.canonical_name(variant) == names.canonical_name(standard) is not None


@pytest.mark.parametrize(
    "foreign",
    [
        "bert.embeddings.position_ids",
        "cls.predictions.decoder.weight",
        "cls.seq_relationship.bias",
        "roberta.encoder.layer.0.output.dense.weight",
        "bert.encoder.layer.x.output.dense.weight",
        "bert.encoder.layer.0.output.dense.weight.extra",
        "",
    ],
)
def test_foreign_names_are_none(foreign):
    assert names.canonical_name(foreign) is None


@pytest.mark.parametrize(
    ("scope", "module"),
    [
        ("bert/encoder/layer_0/attention/self/query/kernel_quantizer", "attention.self.query._weight_quantizer"),
        ("bert/encoder/layer_0/attention/self/key/input_quantizer", "attention.self.key._input_quantizer"),
        ("bert/encoder/layer_0/output/dense/aftergemm_quantizer", "output.dense._aftergemm_quantizer"),
        ("bert/encoder/layer_0/attention/self/matmul_q_input_quantizer", "attention.self.matmul_q_input_quantizer"),
        ("bert/encoder/layer_0/attention/self/softmax_input_quantizer", "attention.self.softmax_input_quantizer"),
        (
            "bert/encoder/layer_0/attention/output/add_residual_input_quantizer",
            "attention.output.add_residual_input_quantizer",
        ),
        (
            "bert/encoder/layer_0/attention/output/layernorm_input_quantizer",
            "attention.output.layernorm_input_quantizer",
        ),
        ("bert/encoder/layer_0/output/layernorm_input_quantizer", "output.layernorm_input_quantizer"),
    ],
)
def test_quantizers_translate_both_ways(scope, module):
    module = f"bert.encoder.layer.0.{module}"
    assert names.quantizer_scope(module) == scope
    assert names.quantizer_module(scope) == module
    assert names.quantizer_scope(f"module.{module}") == scope


def test_the_final_quantizer_changes_its_parent():
    assert names.quantizer_scope("bert.encoder.final_input_quantizer") == "bert/final_input_quantizer"
    assert names.quantizer_module("bert/final_input_quantizer") == "bert.encoder.final_input_quantizer"


@pytest.mark.parametrize("name", ["bert.encoder.layer.0.output.dense", "qa_outputs._weight_quantizer", "x"])
def test_other_modules_are_no_quantizers(name):
    assert names.quantizer_scope(name) is None
    assert names.quantizer_module(name.replace(".", "/")) is None


def test_expected_shapes(tiny_config):
    plain = names.expected_tensors(tiny_config)
    assert len(plain) == 5 + 2 * 16
    assert plain["bert/encoder/layer_1/intermediate/dense/kernel"] == (8, 16)
    assert plain["bert/encoder/layer_1/output/dense/kernel"] == (16, 8)
    assert plain["bert/embeddings/word_embeddings"] == (30, 8)
    squad = names.expected_tensors(tiny_config, "question_answering")
    assert {name: squad[name] for name in set(squad) - set(plain)} == {
        "cls/squad/output_weights": (2, 8),
        "cls/squad/output_bias": (2,),
    }
    glue = names.expected_tensors(tiny_config, "classification", pooler=True, num_labels=3)
    assert {name: glue[name] for name in set(glue) - set(plain)} == {
        "bert/pooler/dense/kernel": (8, 8),
        "bert/pooler/dense/bias": (8,),
        "output_weights": (3, 8),
        "output_bias": (3,),
    }
    assert [names.head_of(each) for each in (plain, squad, glue)] == [None, "question_answering", "classification"]


def test_every_expected_tensor_has_a_hugging_face_name(tiny_config):
    for head in ("question_answering", "classification"):
        for name in names.expected_tensors(tiny_config, head, pooler=True, num_labels=2):
            hugging_face = names.hugging_face_name(name)
            assert hugging_face is not None
            assert names.canonical_name(hugging_face) == (name, names.is_transposed(name))


def test_wrong_heads_are_a_defect_of_the_caller(tiny_config):
    with pytest.raises(ValueError, match="expected one of question_answering, classification"):
        names.expected_tensors(tiny_config, "squad")
    with pytest.raises(ValueError, match="num_labels"):
        names.expected_tensors(tiny_config, "classification")
