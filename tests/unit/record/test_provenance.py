"""Where numbers come from, without saying where somebody's files lie."""

import pytest

from unrecall.record.provenance import without_folders


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("/usr/local/bin/unrecall", "unrecall"),
        ("texts:model=/home/ann/model,forget=/home/ann/f.jsonl", "texts:model=model,forget=f.jsonl"),
        ("/home/ann b/case.py:make", "case.py:make"),
        ("mine.py:make", "mine.py:make"),
        ("data/forget.jsonl", "data/forget.jsonl"),
        ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B"),
        (r"C:\Users\ann\f.jsonl", "f.jsonl"),
        ("share:1/3", "share:1/3"),
        (r"texts:model=/home/ann/m,template=Q:\n{prompt}\n\nA: </s>[/INST]\n,forget=/home/ann/f.jsonl",
         r"texts:model=m,template=Q:\n{prompt}\n\nA: </s>[/INST]\n,forget=f.jsonl"),
        ("/home/ann/m; keep 8; prompts in {prompt}\n/x/y", "m; keep 8; prompts in {prompt}\n/x/y"),
        ("file:///home/ann/x.pt", "x.pt"),
        ("file:/home/ann/x.pt", "x.pt"),
        (r"\\server\ann\x.pt", "x.pt"),
        ("rows with a / b / c removed, items /1, /2", "rows with a / b / c removed, items /1, /2"),
        ("<script>alert(1)</script> of a/b", "<script>alert(1)</script> of a/b"),
        ("///home//ann/x.pt and </home/ann/y.pt", "x.pt and <y.pt"),
        ("s3://bucket/ann/x.pt", "s3://bucket/ann/x.pt"),
        ("forget 20 texts of /home/ann/f.jsonl, keep 8", "forget 20 texts of f.jsonl, keep 8"),
    ],
)  # fmt: skip
def test_absolute_paths_lose_their_folders_and_nothing_else_changes(words: str, expected: str) -> None:
    assert without_folders(words) == expected
    assert without_folders({"a": [words, 1]}) == {"a": [expected, 1]}
