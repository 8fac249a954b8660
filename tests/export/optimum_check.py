"""Run by optimum's Python: FOLDER INPUTS.npz RESULT.json. Loads an exported folder as optimum's users do.

Writes the logits of ORTModelForQuestionAnswering or ORTModelForSequenceClassification for the arrays in INPUTS.npz, and
what a transformers pipeline on the model answers to the texts in it. Imports nothing of this project.
"""

import json
import os
import sys

import numpy as np


def main(folder: str, inputs: str, result: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    from optimum.onnxruntime import ORTModelForQuestionAnswering, ORTModelForSequenceClassification
    from transformers import AutoTokenizer, pipeline

    with np.load(inputs) as arrays:
        texts = [str(text) for text in arrays["texts"]]
        names = ("input_ids", "attention_mask", "token_type_ids")
        tensors = {name: torch.from_numpy(arrays[name]) for name in names}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
        answers_questions = json.load(file)["architectures"] == ["BertForQuestionAnswering"]
    kind = ORTModelForQuestionAnswering if answers_questions else ORTModelForSequenceClassification
    model = kind.from_pretrained(folder)
    outputs = model(**tensors)
    found = {name: outputs[name].tolist() for name in outputs}
    if answers_questions:
        answer = pipeline("question-answering", model=model, tokenizer=tokenizer)(question=texts[0], context=texts[1])
    else:
        answer = pipeline("text-classification", model=model, tokenizer=tokenizer)(texts[0])[0]
    ids = tokenizer(*texts)["input_ids"]
    with open(result, "w", encoding="utf-8") as file:
        json.dump({"class": type(model).__name__, "logits": found, "answer": answer, "ids": ids}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
