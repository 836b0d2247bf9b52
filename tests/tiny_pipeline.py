"""A pipeline at a tiny size: every part real, from DP-SGD to RLOO, but a two-layer model and sixty users."""

import random
from pathlib import Path
from typing import Any

import polars as pl

from dp_assets.pipeline.corpus import register_corpus
from dp_assets.privacy.registration import Registration
from dp_assets.settings.named import load_profile
from dp_assets.settings.profile import Profile
from resources.build import build_resources
from resources.ledger.ledger_resource import Ledger
from resources.models.loaders import Embedder, LanguageModel

DOWN_TO_THE_HISTOGRAM = (
    "real_instructions",
    "real_embeddings",
    "dp_generator",
    "synthetic_pool",
    "synthetic_embeddings",
    "synthetic_bins",
    "dp_histogram",
)
PARTITION = "all|eps-8"
QUESTIONS = ("how do i", "what is", "can you explain", "why is", "where can i find", "tell me about")
TOPICS = ("bread", "gravity", "the sky", "a guitar", "a brave cat", "good books", "france", "the morning", "my home")
OVERRIDES: dict[str, Any] = {
    "name": "tiny",
    "embedder": "hashing",
    "dtype": "float32",
    "device": "cpu",
    "generator": {
        "target_modules": ["q_proj", "v_proj"],
        "last_layers": None,
        "sampling_probability": 0.3,
        "expected_batch_size": 16,
        "steps": 3,
        "spare_steps": 2,
        "max_tokens": 24,
        "loss_normaliser": 24,
        "tokens_per_micro_batch": 256,
        "dtype": "float32",
    },
    "votes": {"num_bins": 4, "noise_stddev": 4.0},
    "sampling": {"num_samples": 48, "max_new_tokens": 12, "batch_size": 16},
    "selection": {"target_size": 24, "top_up_samples": 32},
    "annotation": {"max_new_tokens": 12, "batch_size": 16, "temperature": 1.0},
    "sft": {"max_tokens": 96, "batch_size": 8, "target_modules": ["q_proj", "v_proj"], "rank": 2, "alpha": 4},
    "preferences": {"num_pairs": 12},
    "reward": {"max_tokens": 96, "batch_size": 4, "target_modules": ["q_proj", "v_proj"], "rank": 2, "alpha": 4},
    "rlhf": {
        "steps": 1,
        "prompts_per_step": 2,
        "max_prompt_tokens": 96,
        "max_new_tokens": 8,
        "evaluation_prompts": 4,
        "evaluations": 2,
    },
    "report": {"baseline_samples": 24, "examples": 2, "mauve_buckets": 4},
}


def write_corpus(path: Path, *, num_users: int = 60) -> Path:
    """Questions by users who wrote one to three each, as a Parquet file."""
    choose = random.Random(0)
    rows = [
        {"prompt": f"{choose.choice(QUESTIONS)} {choose.choice(TOPICS)} number {number}?", "user": f"user-{user}"}
        for user in range(num_users)
        for number in range(1 + user % 3)
    ]
    pl.DataFrame(rows).write_parquet(path)
    return path


def tiny_profile(corpus: Path, model: Path, **corpus_overrides: Any) -> Profile:
    """The demo profile at a tiny size, over a corpus file."""
    source = {"kind": "file", "path": str(corpus), "columns": {"text": "prompt", "user_id": "user"}}
    settings = load_profile("demo").model_dump(mode="json")
    for name, value in OVERRIDES.items():
        settings[name] = {**settings[name], **value} if isinstance(value, dict) else value
    settings["language_model"] = str(model)
    settings["corpus"] |= {"source": source, "min_words": 2, "train_fraction": 0.8, **corpus_overrides}
    return Profile.model_validate(settings)


def tiny_resources(profile: Profile, home: Path) -> dict[str, Any]:
    """The resources of a data folder, with the tiny parts behind the interfaces of the real ones."""
    resources = build_resources(profile, home)
    resources["language_model"] = LanguageModel(
        model=profile.language_model, device="cpu", dtype="float32", cache_root=str(home / "models")
    )
    resources["embedder"] = Embedder(model="hashing")
    return resources


def register(ledger: Ledger, profile: Profile, *, is_public: bool = False) -> Registration:
    """Register the profile's corpus as the command does."""
    return register_corpus(ledger, profile, declared_public=is_public)
