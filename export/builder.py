"""A small graph under construction: nodes in order, constants as NumPy arrays by name.

Names are given by the caller and must be new, so equal models get equal names; constants are kept apart from the ONNX
message, which then stays small however large the model is.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper

CONTRIB = "com.microsoft"


class GraphBuilder:
    """Collects nodes and constants; `graph` gives the message without the constants' data."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._names: set[str] = set()

    def constant(self, name: str, array: Any) -> str:
        """Adds an array under a new name, or finds the equal one that has it already; returns the name.

        A name that a different array has is a ValueError: two tensors must not be mixed up.
        """
        array = np.asarray(array)
        known = self.constants.get(name)
        if known is None:
            self._take(name)
            self.constants[name] = array
        elif known is not array and (known.dtype != array.dtype or not np.array_equal(known, array)):
            raise ValueError(f"two different constants are called {name}")
        return name

    def node(self, operator: str, inputs: Sequence[str], name: str, domain: str = "", **attributes: Any) -> str:
        """Adds an operator with one output; returns the output's name, which is the node's."""
        return self.node_with_outputs(operator, inputs, name, [name], domain, **attributes)[0]

    def node_with_outputs(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        outputs: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Adds an operator whose outputs get the given names; returns them."""
        for output in outputs:
            self._take(output)
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=name, domain=domain, **attributes))
        return list(outputs)

    def graph(self, name: str, inputs: dict[str, list[str]], outputs: dict[str, list[str | int]]) -> GraphProto:
        """The message without constants. Inputs are int64, outputs float32; both map names to dimensions."""
        return helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info(key, TensorProto.INT64, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, shape in outputs.items()],
        )

    def _take(self, name: str) -> None:
        if name in self._names:
            raise ValueError(f"the name {name} is taken")
        self._names.add(name)
