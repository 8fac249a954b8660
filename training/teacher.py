"""Which model a teacher is, and whether it can teach this student."""

from pathlib import Path

from checkpoints.checkpoint import Checkpoint
from checkpoints.config import BertConfig
from tasks.tokenization import load_vocabulary
from twinquant.errors import UserError


def teacher_config(teacher: Checkpoint, student: BertConfig, vocab_file: Path, max_seq_length: int) -> BertConfig:
    """The configuration beside the teacher's checkpoint, which may be of another size; the student's if there is none.

    Raises:
        UserError: the teacher reads other tokens than the student, or shorter inputs than `max_seq_length`.
    """
    config = teacher.config or student
    if teacher.vocab_file is not None:
        same = load_vocabulary(teacher.vocab_file) == load_vocabulary(vocab_file)
        tokens = f"the tokens of {teacher.vocab_file}, expected those of {vocab_file}"
    else:
        same = config.vocab_size == student.vocab_size
        tokens = f"a vocabulary of {config.vocab_size} tokens, expected the student's {student.vocab_size}"
    if not same:
        raise UserError(f"--teacher {teacher.source} reads {tokens}: teacher and student must read the same input")
    if config.max_position_embeddings < max_seq_length:
        raise UserError(
            f"--teacher {teacher.source} has {config.max_position_embeddings} positions, less than --max_seq_length "
            f"{max_seq_length}"
        )
    return config
