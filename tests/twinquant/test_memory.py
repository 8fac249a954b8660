"""What glibc's malloc is told."""

import pytest

from twinquant import memory


class Recorder:
    """Takes glibc's place."""

    def __init__(self) -> None:
        self.thresholds: list[int] = []

    def mallopt(self, option: int, value: int) -> None:
        if option == memory._MMAP_THRESHOLD:
            self.thresholds.append(value)


@pytest.mark.parametrize(("kept", "expected"), [(False, 1 << 25), (True, 1 << 30)], ids=["default", "kept"])
def test_loading_leaves_the_threshold_as_it_was(kept: bool, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(memory, "_glibc", lambda: recorder)
    monkeypatch.setattr(memory, "_largest_kept", 1 << 25)
    if kept:
        memory.keep_freed_memory()
    with pytest.raises(KeyError), memory.large_blocks_freed_at_once():
        assert recorder.thresholds[-1] == 1 << 17
        raise KeyError
    assert recorder.thresholds[-1] == expected
