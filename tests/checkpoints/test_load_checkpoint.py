import dataclasses
import fnmatch
import shutil

import numpy as np
import pytest

from checkpoints import names
from checkpoints.checkpoint import load_checkpoint, match
from checkpoints.checkpoint_state import write_checkpoint_state
from checkpoints.dynamic_folder import refuse_dynamic
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_checkpoint import write_tf_checkpoint
from twinquant.errors import UserError


@pytest.mark.parametrize("suffix", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_a_bundle_may_be_given_by_any_of_its_files(tmp_path, squad_checkpoint, assert_same_arrays, suffix):
    write_tf_checkpoint(tmp_path / "bert_model.ckpt", squad_checkpoint)
    found = load_checkpoint(str(tmp_path / f"bert_model.ckpt{suffix}"))
    assert_same_arrays(found.tensors, squad_checkpoint.tensors)
    assert found.source == str(tmp_path / "bert_model.ckpt")


@pytest.mark.parametrize("form", ["bundle", "hugging_face"])
def test_a_folder_with_a_state_file_gives_its_latest(tmp_path, make_checkpoint, form):
    write = write_tf_checkpoint if form == "bundle" else write_hugging_face
    for step in (1, 2):
        checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
        checkpoint.tensors["cls/squad/output_bias"][:] = step
        write(tmp_path / f"model.ckpt-{step}", checkpoint)
    write_checkpoint_state(tmp_path, "model.ckpt-1", ["model.ckpt-2", "model.ckpt-1"])
    found = load_checkpoint(tmp_path)
    assert found.tensors["cls/squad/output_bias"][0] == 1
    assert found.config == make_checkpoint().config or form == "hugging_face"


def test_a_downloaded_folder_with_one_bundle(tmp_path, squad_checkpoint):
    write_tf_checkpoint(tmp_path / "bert_model.ckpt", squad_checkpoint)
    assert len(load_checkpoint(tmp_path).tensors) == len(squad_checkpoint.tensors)
    write_tf_checkpoint(tmp_path / "other.ckpt", squad_checkpoint)
    with pytest.raises(UserError, match=r"several checkpoints, name one of them: .*bert_model\.ckpt, .*other\.ckpt"):
        load_checkpoint(tmp_path)


def test_hugging_face_by_folder_or_by_file(tmp_path, squad_checkpoint, assert_same_arrays):
    write_hugging_face(tmp_path / "model", squad_checkpoint)
    for path in (tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        assert_same_arrays(load_checkpoint(path).tensors, squad_checkpoint.tensors)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin_0", "epoch.pt"])
def test_state_dict_files(tmp_path, squad_checkpoint, assert_same_arrays, name):
    pytest.importorskip("torch")
    write_fastertransformer(tmp_path / name, squad_checkpoint)
    found = load_checkpoint(tmp_path / name)
    assert_same_arrays(found.ranges, squad_checkpoint.ranges)
    if name == "pytorch_model.bin":  # the folder as FasterTransformer's example leaves it
        found = load_checkpoint(tmp_path)
        assert_same_arrays(found.ranges, squad_checkpoint.ranges)
        assert found.config == squad_checkpoint.config


def test_all_forms_are_the_same_checkpoint(tmp_path, squad_checkpoint, assert_same_arrays):
    pytest.importorskip("torch")
    writers = {"a.ckpt": write_tf_checkpoint, "b": write_hugging_face, "c.pt": write_fastertransformer}
    checkpoint = squad_checkpoint
    for name, write in writers.items():
        write(tmp_path / name, checkpoint)
        checkpoint = load_checkpoint(tmp_path / name)
        assert_same_arrays(checkpoint.tensors, squad_checkpoint.tensors)
        assert_same_arrays(checkpoint.ranges, squad_checkpoint.ranges)


@pytest.mark.parametrize("kind", ["folder", "text", "no-index", "path", "ckpt", "self"])
def test_what_is_no_checkpoint_is_said_with_the_accepted_forms(tmp_path, kind):
    path, sentence = tmp_path / kind, "expected a TensorFlow checkpoint prefix"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello")
    elif kind == "no-index":
        (tmp_path / "no-index.data-00000-of-00001").write_bytes(b"")
        sentence = r"has no index: .*no-index\.index does not exist"
    elif kind == "ckpt":
        path = tmp_path / "absent" / "bert_model.ckpt"
    elif kind == "self":
        path.mkdir()
        write_checkpoint_state(path, ".", [])
        sentence = "names its own folder"
    with pytest.raises(UserError, match=sentence) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_hub_name_is_asked_for_only_when_it_can_be_no_path(tmp_path, monkeypatch, squad_checkpoint):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def download(name, allow_patterns):
        asked.append(name)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    write_hugging_face(tmp_path / "snapshot", squad_checkpoint)
    assert load_checkpoint("some-org/some-bert").source == "some-org/some-bert"
    assert asked == ["some-org/some-bert"]
    for path in ("model.ckpt-100", "snapshot/absent", "/some/where", "a/b/c", "./x"):
        with pytest.raises(UserError, match="does not exist"):
            load_checkpoint(path)
    assert asked == ["some-org/some-bert"]


def test_a_calibrated_model_of_the_hub_comes_with_its_ranges(tmp_path, monkeypatch, make_checkpoint):
    hub = pytest.importorskip("huggingface_hub")
    stored = make_checkpoint()
    scope = "bert/encoder/layer_0/attention/self/query/input_quantizer"
    stored.ranges = {scope: np.float32(2.5)}
    write_hugging_face(tmp_path / "remote", stored)
    for name in ("calibration.json", "settings.json"):
        (tmp_path / "remote" / name).write_text("{}")

    def download(_, allow_patterns):
        (tmp_path / "snapshot").mkdir(exist_ok=True)
        for path in (tmp_path / "remote").iterdir():
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, tmp_path / "snapshot")
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(hub, "snapshot_download", download)
    read = load_checkpoint("some-org/some-bert")
    assert read.ranges == {scope: np.float32(2.5)} and read.fetched_into == str(tmp_path / "snapshot")
    assert {"calibration.json", "settings.json"} <= {path.name for path in (tmp_path / "snapshot").iterdir()}


@pytest.mark.parametrize(
    "make_error, ending",
    [
        (
            lambda errors: errors.LocalEntryNotFoundError("Got: ConnectError: [Errno -2] Name or service not known"),
            "(it cannot be reached); name a local folder, or download the model where there is internet",
        ),
        (
            lambda errors: errors.HFValidationError("no such name.\nmore text"),
            "(HFValidationError: no such name); name a local folder or another model",
        ),
    ],
    ids=["no network", "another reason"],
)
def test_a_hub_that_gives_nothing_is_one_sentence(monkeypatch, make_error, ending):
    hub = pytest.importorskip("huggingface_hub")

    def fail(*_, **__):
        raise make_error(hub.errors)

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(UserError) as caught:
        load_checkpoint("some-org/some-bert")
    assert str(caught.value).endswith(f"could not be fetched from the Hugging Face hub {ending}")


def test_match_reports_what_is_loaded_missing_and_unused(make_checkpoint, tiny_config):
    checkpoint = make_checkpoint(pooler=True)
    checkpoint.unused = ["cls/seq_relationship/output_bias"]
    expected = names.expected_tensors(tiny_config, names.QUESTION_ANSWERING)
    head = ["cls/squad/output_weights", "cls/squad/output_bias"]
    report = match(checkpoint, expected, optional=head)
    assert report.missing == head
    assert report.unused == [
        "bert/pooler/dense/bias",
        "bert/pooler/dense/kernel",
        "cls/seq_relationship/output_bias",
    ]
    assert sorted([*report.loaded, *head]) == sorted(expected)
    assert "newly initialized: cls/squad/output_weights, cls/squad/output_bias" in report.summary()
    assert "3 tensors of the checkpoint not used" in report.summary()


def test_match_names_every_missing_tensor(make_checkpoint, tiny_config):
    checkpoint = make_checkpoint()
    for layer in (0, 1):
        del checkpoint.tensors[f"bert/encoder/layer_{layer}/output/dense/bias"]
    del checkpoint.tensors["bert/encoder/layer_1/attention/self/key/kernel"]
    with pytest.raises(UserError) as caught:
        match(checkpoint, names.expected_tensors(tiny_config, names.QUESTION_ANSWERING))
    for name in (
        "lacks 5 tensors",
        "bert/encoder/layer_{0,1}/output/dense/bias",
        "bert/encoder/layer_1/attention/self/key/kernel",
        "cls/squad/output_bias",
    ):
        assert name in str(caught.value)


def test_match_names_every_wrong_shape_also_of_optional_tensors(make_checkpoint, tiny_config):
    checkpoint = make_checkpoint(names.CLASSIFICATION, pooler=True, num_labels=3)
    checkpoint.tensors["bert/embeddings/word_embeddings"] = np.ones((31, 8), np.float32)
    expected = names.expected_tensors(tiny_config, names.CLASSIFICATION, pooler=True, num_labels=2)
    with pytest.raises(UserError) as caught:
        match(checkpoint, expected, optional=["output_weights", "output_bias"])
    for part in (
        "the test's model does not fit the model configuration (vocab_size is 30, the checkpoint's 31): ",
        "bert/embeddings/word_embeddings is [31, 8], expected [30, 8]",
        "output_weights is [3, 8], expected [2, 8]",
        "output_bias is [3], expected [2]",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said", "tensors"),
    [
        ({"hidden_size": 16}, "hidden_size is 16, the checkpoint's 8", 36),
        ({"intermediate_size": 20, "num_hidden_layers": 3},
         "intermediate_size is 20, the checkpoint's 16; num_hidden_layers is 3, the checkpoint's 2", 6),
        ({"max_position_embeddings": 5, "type_vocab_size": 4},
         "max_position_embeddings is 5, the checkpoint's 12; type_vocab_size is 4, the checkpoint's 2", 2),
    ],
    ids=["hidden size", "intermediate size and layers", "positions and types"],
)  # fmt: skip
def test_a_config_of_another_size_is_told_by_its_values(make_checkpoint, tiny_config, changes, said, tensors):
    """And by three tensors of those that do not fit, which may be all."""
    expected = names.expected_tensors(dataclasses.replace(tiny_config, **changes), names.QUESTION_ANSWERING)
    with pytest.raises(UserError) as caught:
        match(make_checkpoint(names.QUESTION_ANSWERING), expected)
    text = str(caught.value)
    assert f"does not fit the model configuration ({said}): bert/" in text
    assert text.count(", expected [") == min(3, tensors)
    assert text.endswith(f"; and {tensors - 3} tensors more") == (tensors > 3)


def test_a_config_of_more_layers_and_a_damaged_tensor(make_checkpoint, tiny_config):
    """Of one wrong kernel among many right ones no value of the configuration is to blame."""
    checkpoint = make_checkpoint()
    with pytest.raises(UserError, match=r"lacks 16 tensors .* \(num_hidden_layers is 3, the checkpoint's 2\): bert/"):
        match(checkpoint, names.expected_tensors(dataclasses.replace(tiny_config, num_hidden_layers=3)))
    checkpoint.tensors["bert/encoder/layer_0/attention/self/key/kernel"] = np.ones((8, 9), np.float32)
    with pytest.raises(UserError, match=r"does not fit the model configuration: .*/key/kernel is \[8, 9\], expected"):
        match(checkpoint, names.expected_tensors(tiny_config))


def test_a_dynamically_quantized_folder_is_told_by_both_of_its_files(tmp_path):
    weights = tmp_path / "model_int8.safetensors"
    weights.write_bytes(b"")
    refuse_dynamic(tmp_path)  # any folder may hold a file of that name
    (tmp_path / "dynamic.json").write_text("{}")
    for path in (tmp_path, weights):
        with pytest.raises(UserError, match="is a model that --quant_scheme=dynamic quantized"):
            load_checkpoint(path)


def test_a_name_of_two_checkpoints_is_refused(tmp_path, make_checkpoint):
    """Such as an earlier version left, where both backends wrote into one folder: neither is the one that is meant."""
    path = tmp_path / "model.ckpt-16"
    for write, value in ((write_tf_checkpoint, 1.0), (write_hugging_face, 2.0)):
        checkpoint = make_checkpoint(names.QUESTION_ANSWERING)
        checkpoint.tensors["cls/squad/output_bias"][:] = value
        write(path, checkpoint)
    write_checkpoint_state(tmp_path, path.name, [path.name])
    for given in (path, tmp_path):
        with pytest.raises(UserError, match=r"ckpt-16 is the name of two checkpoints.* name .*ckpt-16\.index or .*16/"):
            load_checkpoint(given)
    assert load_checkpoint(f"{path}.index").tensors["cls/squad/output_bias"][0] == 1.0
    assert load_checkpoint(f"{path}/").tensors["cls/squad/output_bias"][0] == 2.0
