"""PyTorch's dynamic quantization of a trained model: scored beside the fp32 model, saved, reloaded, measured."""

import logging
import os
from pathlib import Path

import numpy as np

from checkpoints.hugging_face import write_hugging_face
from training.classification_run import SAME_WEIGHTS, ClassificationRun
from training.flips import report_flips
from training.prediction import model_inputs
from twinquant.errors import UserError
from twinquant.files import make_folder, write_json_atomically
from twinquant.model_card import write_card

logger = logging.getLogger("twinquant")

TIMED_BATCHES = 4


class DynamicRun(ClassificationRun):
    """run_glue.py --quant_scheme=dynamic: the fp32 phases, then the same model with int8 weights."""

    def execute(self) -> dict[str, float]:
        """The phases, in one process.

        Raises UserError in several: what is measured here is a model on one machine.
        """
        if self.processes.size > 1:
            raise UserError("--quant_scheme=dynamic runs in one process: train under --horovod, then start it alone")
        return super().execute()

    def predict(self) -> dict[str, float]:
        """Scores of the int8 model; those of the fp32 model are in the folder fp32, the comparison in dynamic.json.

        Raises UserError where the saved model, read again, does not give the same logits.
        """
        # Here, because only this scheme needs torch in a run that another backend may have trained.
        from backends.pytorch.dynamic import DynamicModel, DynamicSettings
        from backends.pytorch.dynamic_report import TableRow, size_report, speed, table

        settings, output = self.settings, Path(self.settings.output_dir)
        fp32_scores = self.score(self.backend, output / "fp32", labeled_only=True)
        self.task.write_scores(fp32_scores, output / "fp32")
        parent = dict(self.task.predictions)
        make_folder(output / "fp32")  # nothing is there where no set has labels
        fp32 = self.as_checkpoint()
        fp32.card = self.card("fp32/model", "fp32", fp32_scores)
        write_hugging_face(output / "fp32" / "model", fp32)

        model = DynamicModel.from_tensors(
            self.config,
            self.task.head,
            self.task.num_labels,
            self.tensors,
            DynamicSettings(
                settings.quantized_engine, settings.dynamic_engine, settings.dynamic_per_channel, settings.per_row
            ),
        )
        logger.info("%s", model.describe())
        model.save(output / "int8")
        batches = self._first_batches()
        self._check_reloaded(model, DynamicModel.load(output / "int8"), batches[0])
        scores = self.score(model, output)
        self.task.write_scores(scores, output)
        write_card(output / "int8", self.card("int8", "dynamic", scores))
        changes = report_flips(parent, self.task.predictions, SAME_WEIGHTS, output)

        sizes = size_report(output / "fp32" / "model" / "model.safetensors", output / "int8" / "model_int8.safetensors")
        models = {
            "fp32": lambda inputs: [self.backend.predict(batch) for batch in inputs],
            "int8 dynamic": lambda inputs: [model.predict(batch) for batch in inputs],
        }
        times: dict[str, dict[int, float]] = {name: {} for name in models}
        for threads in sorted({1, available_threads()}):
            for name, seconds in speed(models, batches, threads, rounds=3).items():
                times[name][threads] = seconds
        rows = [
            TableRow(name, size, self.task.main_score(found) if found else None, times[name])
            for name, size, found in (
                ("fp32", sizes.float_bytes, fp32_scores),
                ("int8 dynamic", sizes.int8_bytes, scores),
            )
        ]
        print(table(self.task.source.main_metric, rows))
        examples = sum(len(batch["input_ids"]) for batch in batches)
        print(f"seconds are for {examples} examples in batches of {settings.predict_batch_size}\n{sizes}")
        for name, change in changes.items() if self.task.label_names is not None else ():
            agreement = 100.0 * (1.0 - change["changed"] / change["examples"])
            print(f"{name}: {agreement:.2f} % of {change['examples']} labels agree with fp32")
        report = {"settings": model.describe(), "sizes": sizes._asdict(), "seconds": times, "fp32": fp32_scores}
        write_json_atomically(output / "dynamic.json", report | {"int8": scores, "flips": changes})
        return scores

    def _first_batches(self) -> list[dict[str, np.ndarray]]:
        """The first batches of the first prediction set, to be timed."""
        features, size = self.task.prediction_sets()[0].features(), self.settings.predict_batch_size
        starts = range(0, len(features), size)[:TIMED_BATCHES]
        return [model_inputs(features.batch(range(start, min(start + size, len(features))))) for start in starts]

    def _check_reloaded(self, model, reloaded, batch: dict[str, np.ndarray]) -> None:
        expected, found = model.predict(batch), reloaded.predict(batch)
        if any(not np.array_equal(found[name], logits) for name, logits in expected.items()):
            raise UserError(f"{self.settings.output_dir}/int8 was saved, but read again it gives other logits")


def available_threads() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0))
