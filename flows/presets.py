"""Named sets of settings: what a run starts from before the command's own flags.

A preset is a function from the three words to plain values by section. What belongs to one dataset, backbone or method is given
only when that one was chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2urec_core.errors import BadSetting
from e2urec_core.plugins import word

Sections = dict[str, Any]


def _template(dataset: str) -> Sections:
    """Books are read and not watched."""
    return {"template": "book"} if dataset == "goodreads" else {}


def _demo_method(method: str) -> Sections:
    """The demo's knobs of one method: sources train networks a hundred times as large, at rates that hardly move a tiny one."""
    passes = {"num_epochs": 4, "batch_size": 32, "schedule": "linear", "warmup_share": 0.05}
    knobs: dict[str, Sections] = {
        "e2urec": {"suppression": 60.0, "training": {**passes, "learning_rate": 4e-3}},
        "retain_only": {"training": {**passes, "learning_rate": 5e-4}},
        "neg_grad": {"training": {**passes, "learning_rate": 5e-4}},
        "neg_kl": {"training": {**passes, "learning_rate": 5e-4}},
        "bad_t": {"forget_weight": 1.0, "training": {**passes, "learning_rate": 5e-4}},
        "grad_diff": {"training": {**passes, "learning_rate": 3e-4}},
        "npo": {"sharpness": 1.0, "training": {**passes, "learning_rate": 3e-4}},
        "simnpo": {"forget_weight": 1.0, "training": {**passes, "learning_rate": 1e-3}},
        "undial": {"strength": 8.0, "training": {**passes, "learning_rate": 1e-3}},
        "ifru": {"scale": 2.0, "panel_rows": 256, "tolerance": 0.01},
        "task_negation": {"training": {**passes, "num_epochs": 2, "learning_rate": 5e-4}},
        "rec_eraser": {"num_shards": 4},
        "apa": {
            "lora": {"rank": 16, "alpha": 32.0, "targets": "all_linear"},
            "training": {**passes, "num_epochs": 8, "learning_rate": 2e-3},
        },
        "calibrated": {"guess_share": 1.0, "training": {**passes, "learning_rate": 6e-3}},
    }
    return knobs.get(method, {})


def demo(dataset: str, backbone: str, method: str) -> Sections:
    """The sample's polluted users, forgotten within three minutes on two cores."""
    return {
        "prompt": _template(dataset),
        "split": {"holdout_share": 0.1},
        "forget": {"share": 1.0, "cohort": "polluted"} if dataset == "sample" else {},
        "training": {"num_epochs": 8, "batch_size": 32, "learning_rate": 1e-3},
        "augment": {"num_epochs": 3, "batch_size": 32, "learning_rate": 5e-4},
        "cache": {"retained_per_forgotten": 4.0},
        "evaluate": {"floor_seeds": 1},
        "method": _demo_method(method),
    }


def default(dataset: str, backbone: str, method: str) -> Sections:
    """All rows, early stopping, no further Retrains; what a data team starts from."""
    return {
        "prompt": _template(dataset),
        "training": {"num_epochs": 10, "batch_size": 64, "learning_rate": 1e-3, "patience": 2},
    }


def smoke(dataset: str, backbone: str, method: str) -> Sections:
    """The newest 20,000 examples and few passes: the whole story on real rows within minutes."""
    return {
        "prompt": _template(dataset),
        "split": {"last_examples": 20_000},
        "forget": {"share": 0.2},
        "backbone": {"vocabulary": 4000} if backbone.startswith("tiny") else {},
        "training": {"num_epochs": 4, "batch_size": 64, "learning_rate": 1e-3},
        "augment": {"num_epochs": 2, "batch_size": 64, "learning_rate": 5e-4},
        "method": {"suppression": 4.0, "training": {"num_epochs": 2, "batch_size": 64, "learning_rate": 4e-3}}
        if method == "e2urec"
        else _demo_method(method),
    }


def paper(dataset: str, backbone: str, method: str) -> Sections:
    """The reference's protocol: the newest 100,000 examples, 6:2:2, a fifth of the training users, nobody held out."""
    return {
        "dataset": {"like_above": 3.0},
        "history": {"length": 10, "at_least": 5},
        "prompt": {"template": "reference", **_template(dataset)},
        "split": {"train_share": 0.6, "validation_share": 0.2, "holdout_share": 0.0, "last_examples": 100_000},
        "forget": {"share": 0.2},
        "training": {
            "num_epochs": 100,
            "batch_size": 32,
            "learning_rate": 5e-4,
            "patience": 3,
            "schedule": "constant",
            "warmup_share": 0.0,
        },
        "augment": {"num_epochs": 1, "batch_size": 16, "learning_rate": 5e-5, "schedule": "constant", "warmup_share": 0.0},
        "method": {
            "suppression": 2.0,
            "forget_weight": 0.6,
            "lora": {"rank": 16, "alpha": 32.0, "dropout": 0.05, "targets": "attention"},
            "training": {"num_epochs": 1, "batch_size": 16, "learning_rate": 1e-3, "schedule": "constant", "warmup_share": 0.0},
        }
        if method == "e2urec"
        else {},
    }


def table(dataset: str, backbone: str, method: str) -> Sections:
    """A table of the paper: its protocol, reduced where the network is one of our small ones."""
    return smoke(dataset, backbone, method) if backbone.startswith("tiny") else paper(dataset, backbone, method)


def memorising(dataset: str, backbone: str, method: str) -> Sections:
    """Few rows and many passes, so that the original remembers rows that nothing else explains, and a method can show that it forgets.

    On the sample everybody whose likes follow no genre is forgotten: what a recommender knows of them it knows by heart.
    """
    on_sample = dataset == "sample"
    knobs: dict[str, Sections] = {
        "calibrated": {
            **({"guess_share": 1.0, "ridge": 2.0} if on_sample else {"guess_share": 0.5, "ridge": 20.0, "push": 2.5}),
            "training": {"num_epochs": 3, "batch_size": 32, "learning_rate": 6e-3},
        },
        "undial": {
            "trains": "adapter",
            "lora": {"targets": "all_linear", "dropout": 0.0},
            "training": {"num_epochs": 6, "batch_size": 32, "learning_rate": 3e-3},
        },
    }
    return {
        "dataset": {"num_users": 300, "idiosyncratic_share": 0.2} if on_sample else {},
        "prompt": _template(dataset),
        "split": {"holdout_share": 0.2, **({} if on_sample else {"last_examples": 12_000})},
        "forget": {"share": 1.0, "cohort": "idiosyncratic"} if on_sample else {"share": 0.2},
        "backbone": {"vocabulary": 4000} if backbone.startswith("tiny") and not on_sample else {},
        "training": {"num_epochs": 10, "batch_size": 32, "learning_rate": 1e-3}
        if on_sample
        else {"num_epochs": 6, "batch_size": 64, "learning_rate": 1e-3},
        "augment": {"num_epochs": 3, "batch_size": 32, "learning_rate": 5e-4},
        "evaluate": {"floor_seeds": 2},
        "method": knobs.get(method, _demo_method(method)),
    }


PRESETS: dict[str, Callable[[str, str, str], Sections]] = {
    "demo": demo,
    "default": default,
    "smoke": smoke,
    "paper": paper,
    "memorising": memorising,
}
PRESETS |= dict.fromkeys((f"table-{number}" for number in range(1, 6)), table)


def preset_sections(name: str | None, dataset: str, backbone: str, method: str) -> Sections:
    """The values of preset `name`; without a name, `demo` for the sample and `default` for everything else.

    Raises:
        BadSetting: There is no such preset.
    """
    chosen = name or ("demo" if dataset == "sample" else "default")
    if chosen not in PRESETS:
        raise BadSetting(f"there is no preset `{chosen}`", hint=f"presets: {', '.join(map(word, PRESETS))}")
    return PRESETS[chosen](dataset, backbone, method)
