"""BERT as ONNX nodes: the same computation as backends/pytorch/model.py, written once for every form.

B = batch, S = positions, H = hidden size, A = attention heads, D = H / A, F = intermediate size, N = rows: of a flat
form B * S, else B, S.
"""

import math

import numpy as np

from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION
from export.builder import GraphBuilder
from export.embeddings import Tables
from export.form import Form, Operand

# As backends.base.MASK_VALUE, which is not imported so that a model can be written without the backends' modules.
MASK_VALUE = -10000.0
INPUTS = {name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")}


class BertGraph:
    """Writes one model into a builder; call `build` once."""

    def __init__(self, builder: GraphBuilder, config: BertConfig, form: Form, tables: Tables) -> None:
        self.builder, self.config, self.form, self.tables = builder, config, form, tables
        self.node, self.constant = builder.node, builder.constant
        self.shapes: dict[str, str] = {}

    def build(self, head: str) -> None:
        """The nodes from the three inputs to the head's outputs (see `output_shapes`)."""
        x = self.embeddings()
        mask = self.attention_mask()
        last = self.config.num_hidden_layers - 1
        for layer in range(self.config.num_hidden_layers):
            # A sentence head reads the first position alone, so the last layer need not compute the others.
            x = self.layer(x, mask, f"bert/encoder/layer_{layer}", head == CLASSIFICATION and layer == last)
        x = self.form.fake_quantize(x, "bert/final_input_quantizer")
        if head == CLASSIFICATION:
            self.classification(x)
        else:
            self.question_answering(x)

    def embeddings(self) -> str:  # -> [N, H]
        words = self.tables.look_up("word_embeddings", "input_ids")
        segments = self.tables.look_up("token_type_embeddings", "token_type_ids")
        shape = self.node("Shape", ["input_ids"], "bert/embeddings/shape")
        one, two = self.constant("one", np.array([1])), self.constant("two", np.array([2]))
        positions = self.tables.first_rows(
            "position_embeddings", self.node("Slice", [shape, one, two], "bert/embeddings/positions")
        )
        x = self.node("Add", [words, segments], "bert/embeddings/Add")
        x = self.norm(self.node("Add", [x, positions], "bert/embeddings/Add_1"), "bert/embeddings/LayerNorm")
        if not self.form.flat:
            return x
        return self.node("Reshape", [x, self.rows_shape(False)], "bert/embeddings/flat")

    def attention_mask(self) -> str:  # -> [B, 1, 1, S]: 0 for tokens, MASK_VALUE for padding
        mask = self.node("Cast", ["attention_mask"], "bert/mask/Cast", to=1)
        mask = self.node("Sub", [self.constant("bert/mask/one", np.float32(1)), mask], "bert/mask/Sub")
        mask = self.node("Mul", [mask, self.constant("bert/mask/value", np.float32(MASK_VALUE))], "bert/mask/Mul")
        return self.node("Unsqueeze", [mask, self.constant("bert/mask/axes", np.array([1, 2]))], "bert/mask/Unsqueeze")

    def heads_shape(self, first_only: bool) -> str:
        """The target of a Reshape that separates the heads: [B, S, A, D], of first positions [B, 1, A, D]."""
        by_head = np.array([self.config.num_attention_heads, self.config.head_size])
        if first_only:
            return self.constant("first_heads_shape", np.array([-1, 1, *by_head]))
        if not self.form.flat:
            return self.constant("heads_shape", np.array([0, 0, *by_head]))
        return self.with_batch_and_positions("heads_shape", by_head)

    def rows_shape(self, first_only: bool) -> str:
        """The target of a Reshape that joins the heads: [N, H], of first positions [B, H]."""
        if self.form.flat or first_only:
            return self.constant("rows_by_hidden", np.array([-1, self.config.hidden_size]))
        return self.constant("rows_shape", np.array([0, 0, self.config.hidden_size]))

    def with_batch_and_positions(self, name: str, sizes: np.ndarray) -> str:
        """int64 [B, S, *sizes], computed once per name."""
        if name not in self.shapes:
            parts = ["bert/embeddings/shape", self.constant(f"{name}/sizes", sizes)]
            self.shapes[name] = self.node("Concat", parts, name, axis=0)
        return self.shapes[name]

    def layer(self, x: str, mask: str, scope: str, first_only: bool) -> str:  # [N, H] -> [N, H], or [B, H]
        queries = self.first_position(x, scope) if first_only else x
        context = self.attention(queries, x, mask, f"{scope}/attention/self", first_only)
        x = self.add_norm(context, queries, f"{scope}/attention/output")
        intermediate = f"{scope}/intermediate/dense"
        inner = self.form.dense(self.form.operand(x, f"{intermediate}/input_quantizer"), intermediate)
        inner = self.form.activation(inner, self.config.activation, f"{scope}/intermediate/activation")
        return self.add_norm(self.form.operand(inner, f"{scope}/output/dense/input_quantizer"), x, f"{scope}/output")

    def attention(self, queries: str, x: str, mask: str, scope: str, first_only: bool) -> Operand:  # -> [N, H]
        form = self.form
        q, k, v = (
            form.operand(
                form.dense(form.operand(source, f"{scope}/{name}/input_quantizer"), f"{scope}/{name}"),
                f"{scope}/matmul_{name[0]}_input_quantizer",
            )
            for name, source in (("query", queries), ("key", x), ("value", x))
        )
        q = self.by_head(q, f"{scope}/query", (0, 2, 1, 3), first_only)  # [B, A, S, D], or [B, A, 1, D]
        k = self.by_head(k, f"{scope}/key", (0, 2, 3, 1))  # [B, A, D, S]
        v = self.by_head(v, f"{scope}/value", (0, 2, 1, 3))  # [B, A, S, D]
        divided = 1.0 / math.sqrt(self.config.head_size)
        rounding = f"{scope}/softmax_input_quantizer"
        if rounding in form.grids:
            scores = form.scaled(form.rounded_product(q, k, f"{scope}/scores", rounding), f"{scope}/scores", divided)
        else:
            scores = form.product(q, k, f"{scope}/scores", divided)  # [B, A, S, S]
        scores = self.node("Add", [scores, mask], f"{scope}/masked")
        probabilities = self.node("Softmax", [scores], f"{scope}/Softmax", axis=-1)
        a = form.operand(probabilities, f"{scope}/matmul_a_input_quantizer")
        # Rounded before it is transposed: bytes are moved faster than floats.
        following = scope.replace("/self", "/output/dense/input_quantizer")
        context = form.rounded_product(a, v, f"{scope}/context", following)  # [B, A, S, D]
        merged = form.move("Transpose", context, [], f"{scope}/context/Transpose", perm=(0, 2, 1, 3))
        return form.move("Reshape", merged, [self.rows_shape(first_only)], f"{scope}/context/Reshape")

    def by_head(self, x: Operand, name: str, order: tuple[int, ...], first_only: bool = False) -> Operand:
        """[N, H] -> four axes in that order of [B, S, A, D]."""
        x = self.form.move("Reshape", x, [self.heads_shape(first_only)], f"{name}/Reshape")
        return self.form.move("Transpose", x, [], f"{name}/Transpose", perm=order)

    def add_norm(self, x: Operand, residual: str, scope: str) -> str:  # [N, inputs], [N, H] -> [N, H]
        form = self.form
        local = form.fake_quantize(form.dense(x, f"{scope}/dense"), f"{scope}/add_local_input_quantizer")
        residual = form.fake_quantize(residual, f"{scope}/add_residual_input_quantizer")
        total = self.node("Add", [local, residual], f"{scope}/residual")
        return self.norm(form.fake_quantize(total, f"{scope}/layernorm_input_quantizer"), f"{scope}/LayerNorm")

    def norm(self, x: str, scope: str) -> str:
        tensors = self.form.tensors
        parameters = [self.constant(f"{scope}/{name}", tensors[f"{scope}/{name}"]) for name in ("gamma", "beta")]
        return self.node(
            "LayerNormalization",
            [x, *parameters],
            f"{scope}/LayerNormalization",
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )

    def first_position(self, x: str, scope: str) -> str:  # [N, H] -> [B, H]
        if self.form.flat:
            shape = self.with_batch_and_positions("full_shape", np.array([self.config.hidden_size]))
            x = self.node("Reshape", [x, shape], f"{scope}/by_position")
        return self.node("Gather", [x, self.constant("zero", np.int64(0))], f"{scope}/first", axis=1)

    def question_answering(self, x: str) -> None:  # [N, H] -> start_logits, end_logits: [B, S]
        logits = self.head(x, "cls/squad/")
        if self.form.flat:
            shape = self.with_batch_and_positions("logits_shape", np.array([2]))
            logits = self.node("Reshape", [logits, shape], "cls/squad/Reshape")
        halves = ["cls/squad/start", "cls/squad/end"]
        one = self.constant("ones", np.array([1, 1]))
        self.builder.node_with_outputs("Split", [logits, one], "cls/squad/Split", halves, axis=-1)
        last = self.constant("last_axis", np.array([-1]))
        for half, output in zip(halves, ("start_logits", "end_logits"), strict=True):
            self.node("Squeeze", [half, last], output)

    def classification(self, x: str) -> None:  # [B, H] -> logits: [B, labels]
        scope, tensors = "bert/pooler/dense", self.form.tensors
        parameters = [self.constant(f"{scope}/{name}", tensors[f"{scope}/{name}"]) for name in ("kernel", "bias")]
        pooled = self.node("Gemm", [x, *parameters], f"{scope}/Gemm")
        self.head(self.node("Tanh", [pooled], f"{scope}/Tanh"), "", "logits")

    def head(self, x: str, scope: str, name: str = "") -> str:
        """x @ output_weights^T + output_bias; the weights are stored [out, in]."""
        weights = self.form.tensors[f"{scope}output_weights"]
        bias = self.constant(f"{scope}output_bias", self.form.tensors[f"{scope}output_bias"])
        if self.form.flat or name:
            kernel = self.constant(f"{scope}output_weights", weights)
            return self.node("Gemm", [x, kernel, bias], name or f"{scope}Gemm", transB=1)
        kernel = self.constant(f"{scope}output_weights", np.ascontiguousarray(weights.T))
        return self.node("Add", [self.node("MatMul", [x, kernel], f"{scope}MatMul"), bias], f"{scope}Add")


def output_shapes(head: str, num_labels: int | None) -> dict[str, list[str | int]]:
    """Names and dimensions of a model's outputs."""
    if head == CLASSIFICATION:
        return {"logits": ["batch", int(num_labels or 0)]}
    return {"start_logits": ["batch", "sequence"], "end_logits": ["batch", "sequence"]}
