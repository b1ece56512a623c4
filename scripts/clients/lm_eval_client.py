"""lm-evaluation-harness, with tasks of its own that need no data from elsewhere."""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from scripts.clients.checks import MODEL, URL, expect, run

ROWS = [
    {"text": "import os", "ends": [".path", "zzz"], "gold": 0},
    {"text": "def f(x):\n    return", "ends": [" x", " qqqq q"], "gold": 0},
    {"text": "for i in", "ends": [" %%%", " range(10):"], "gold": 1},
]
CHOICE = {
    "output_type": "multiple_choice", "doc_to_text": "{{text}}", "doc_to_choice": "{{ends}}",
    "doc_to_target": "{{gold}}", "target_delimiter": "", "metric_list": [{"metric": "acc"}],
}  # fmt: skip
ROLLING = {
    "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}  # fmt: skip
GENERATE = {
    "output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "{{ends[gold]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "temperature": 0},
    "metric_list": [{"metric": "exact_match"}],
}  # fmt: skip


def results(task: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The metrics of a task."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        files = {"data_files": {"test": str(data)}, "cache_dir": folder}
        config = {"task": "own", "dataset_path": "json", "dataset_kwargs": files, "test_split": "test", **task}
        found = simple_evaluate(
            model="local-completions", tasks=[config], task_manager=TaskManager(include_defaults=False),
            bootstrap_iters=0,
            model_args={"model": MODEL, "base_url": f"{URL}/v1/completions", "tokenizer_backend": "remote", **options},
        )  # fmt: skip
    metrics: dict[str, Any] = found["results"]["own"]
    return metrics


def loglikelihood() -> None:
    """loglikelihood, one by one and several at once: the same."""
    one, several = results(CHOICE)["acc,none"], results(CHOICE, num_concurrent=3, batch_size=2)["acc,none"]
    expect(one == several and one > 0, (one, several))


def rolling() -> None:
    """loglikelihood_rolling."""
    bits = results(ROLLING)["bits_per_byte,none"]
    expect(math.isfinite(bits) and bits > 0, bits)


def generate_until() -> None:
    """generate_until."""
    expect("exact_match,none" in results(GENERATE), "no metric")


run(loglikelihood, rolling, generate_until)
