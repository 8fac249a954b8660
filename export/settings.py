"""What an exported model is to be: precision, mode, runtime and the choices that follow from the processor."""

from dataclasses import dataclass, replace

from quantization.modes import Mode
from quantization.numerics import QuantizerSettings

PRECISIONS = ("fp32", "int8", "int8-dynamic")
TARGETS = ("onnxruntime", "openvino", "tensorrt")

# Weights in [-63, 63]: two products with uint8 activations add up to at most 2 * 255 * 63, which fits into the 16 bits
# of vpmaddubsw, the instruction of x86 CPUs without VNNI.
REDUCED_WEIGHT = QuantizerSettings(num_bits=7, narrow_range=True)


@dataclass(frozen=True)
class ExportSettings:
    """How one model is written.

    precision: "fp32"; "int8" with the ranges of a mode; "int8-dynamic", activation ranges found at run time.
    mode: what is quantized, of "int8"; None otherwise.
    target: the runtime whose graph form is written.
    portable: standard ONNX operators only (of target onnxruntime; the other targets have no others).
    int8_embeddings: embedding tables as int8 with one scale per row.
    reduce_range: weights of 7 bits, for CPUs whose u8 x s8 kernels saturate.
    vnni: the model is for CPUs with VNNI (of the default form): K and V are int8; else uint8, which never saturates.
    """

    precision: str = "fp32"
    mode: Mode | None = None
    target: str = "onnxruntime"
    portable: bool = False
    int8_embeddings: bool = False
    reduce_range: bool = False
    vnni: bool = True

    @property
    def effective_mode(self) -> Mode | None:
        """The mode as the model computes it: `mode`, its weights at 7 bits where the range is reduced."""
        if self.mode is None or not self.reduce_range:
            return self.mode
        return replace(self.mode, weight=REDUCED_WEIGHT)

    def describe(self) -> str:
        """The settings in words, for messages: "int8, mode ft2, target onnxruntime, weights of 7 bits"."""
        words = [self.precision]
        words += [f"mode {describe_mode(self.mode)}"] if self.mode else []
        words += [f"target {self.target}"]
        words += ["standard operators only"] if self.portable else []
        words += ["weights of 7 bits (reduced range)"] if self.reduce_range else []
        words += ["int8 embeddings"] if self.int8_embeddings else []
        return ", ".join(words)


def describe_mode(mode: Mode) -> str:
    """A mode in words: "ft2", or "ft2 with 3 quantizers left in float"."""
    return f"{mode.name} with {len(mode.excluded)} quantizers left in float" if mode.excluded else mode.name
