"""What the README shows of the reference launcher and of PyTorch's tracker is what they print."""

from targets.readme import README, blocks, comparable, run_again


def test_what_needs_pytorch_prints_what_is_shown() -> None:
    text = README.read_text("utf-8")
    shown, printed = blocks(text), blocks(run_again(text))
    assert shown
    assert [comparable(block) for block in printed] == [comparable(block) for block in shown]
