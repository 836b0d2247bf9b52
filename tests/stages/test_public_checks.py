"""What is public and cannot work is found by one tiny step of each stage, before anything is charged."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, T5ForConditionalGeneration

from dp_assets.settings.profile import Profile
from dp_assets.stages import public_checks
from dp_assets.stages.public_checks import PublicCheck, found_by, generator_check, model_checks, require_public
from resources.annotator import NotReady
from resources.models.loaders import Embedder, LanguageModel
from tests.conftest import CHAT_TEMPLATE
from tests.tiny_pipeline import tiny_profile

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 256}
OPT = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "gpt2": ("gpt2", {**GPT2, "n_positions": 256}, ("c_attn",)),
    "gpt2 of few positions": ("gpt2", {**GPT2, "n_positions": 16}, ("c_attn",)),
    "opt": ("opt", {**OPT, "max_position_embeddings": 256}, ("q_proj", "v_proj")),
    "experts": ("mixtral", {**LLAMA, "num_local_experts": 2}, ("q_proj", "v_proj")),
    "no scorer": ("granite", LLAMA, ("q_proj", "v_proj")),
    "encoder": ("bert", {**SIZES, "max_position_embeddings": 256}, ("query", "value")),
    "sequence to sequence": ("t5", T5, ("q", "v")),
    "fewer tokens than its tokenizer": ("llama", {**LLAMA, "vocab_size": 40}, ("q_proj", "v_proj")),
    "not finite": ("llama", LLAMA, ("q_proj", "v_proj")),
}


def saved(folder: Path, family: str, tokenizer: Any) -> Path:
    """A tiny random model of a family with the tiny tokenizer."""
    kind, sizes, _ = FAMILIES[family]
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, **{"vocab_size": len(tokenizer), **special, **sizes})
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config) if kind == "t5" else AutoModelForCausalLM.from_config(config)
    if family == "not finite":
        model.get_input_embeddings().weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def profile_of(model: Path, target_modules: tuple[str, ...], **groups: dict[str, Any]) -> Profile:
    plain = tiny_profile(Path("no corpus"), model).model_dump(mode="json")
    for name in ("generator", "sft", "reward"):
        plain[name]["target_modules"] = target_modules
    return Profile.model_validate(plain | {name: plain[name] | group for name, group in groups.items()})


def checks_model(profile: Profile, home: Path) -> LanguageModel:
    return LanguageModel(model=profile.language_model, device="cpu", dtype="float32", cache_root=str(home))


def checks_of(profile: Profile, home: Path) -> list[PublicCheck]:
    model = checks_model(profile, home)
    embedder = Embedder(model=profile.embedder, device="cpu")
    return [
        *model_checks(profile, model, embedder, home, level="eps-8"),
        generator_check(profile, model, level="eps-8"),
    ]


def problems(profile: Profile, home: Path, *settings: str) -> dict[str, str]:
    """What the checks of these settings find, or all of them."""
    chosen = [check for check in checks_of(profile, home) if check.setting in settings or not settings]
    return {problem.field: problem.what for problem in found_by(chosen)}


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model_folder)


def test_a_sound_model_passes_in_every_stage(tmp_path: Path, tiny_model_folder: Path) -> None:
    assert problems(profile_of(tiny_model_folder, ("q_proj", "v_proj")), tmp_path) == {}


def test_all_stages_but_private_training_share_one_load_of_the_model(
    tmp_path: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = LanguageModel.load

    def counted(model: LanguageModel, **settings: Any) -> Any:
        loads.append(model.model)
        return load(model, **settings)

    monkeypatch.setattr(LanguageModel, "load", counted)
    monkeypatch.setattr(public_checks, "_passed", set())
    stages = ("language_model", "sampling", "annotation", "sft", "reward", "rlhf")
    assert problems(profile_of(tiny_model_folder, ("q_proj", "v_proj")), tmp_path, *stages) == {}
    assert loads == [str(tiny_model_folder)]


def test_a_stage_leaves_the_model_of_the_next_one_as_it_was(tmp_path: Path, tiny_model_folder: Path) -> None:
    profile = profile_of(tiny_model_folder, ("q_proj", "v_proj"))
    loaded = public_checks._Loaded(checks_model(profile, tmp_path))
    model, _ = loaded.shared()
    before, names = {name: value.clone() for name, value in model.state_dict().items()}, [*model.named_modules()]
    public_checks._try_sampling(profile, loaded, "eps-8")
    for attempt in (public_checks._try_answering, public_checks._try_sft, public_checks._try_reward):
        attempt(profile, loaded)
    assert [name for name, _ in model.named_modules()] == [name for name, _ in names]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("family", "setting", "words"),
    [
        ("opt", "generator", r"q_proj.* gets an input that is not \[1, tokens, features\]"),
        ("experts", "generator", "sends tokens to experts .*; choose a dense model"),
        ("no scorer", "reward", "reward: a step on public text is not possible .*Unrecognized configuration class"),
        ("encoder", "sampling", "looks at the tokens behind a token, .*choose a causal language model"),
        ("sequence to sequence", "language_model", "cannot be loaded as a causal language model"),
        ("fewer tokens than its tokenizer", "annotation", "has vectors for 40 tokens"),
        ("not finite", "sampling", "numbers that are not finite; set dtype"),
        *(
            ("gpt2 of few positions", setting, rf"{setting}\.max_\w+ makes .*has 16 positions; allow fewer")
            for setting in ("generator", "annotation", "sft", "reward", "rlhf")
        ),
    ],
)
def test_a_model_that_a_stage_cannot_use_is_found_by_that_stage(
    tmp_path: Path, tokenizer: Any, family: str, setting: str, words: str
) -> None:
    profile = profile_of(saved(tmp_path, family, tokenizer), FAMILIES[family][2])
    (said,) = problems(profile, tmp_path, setting).values()
    assert re.search(words, said), said


def test_layers_of_gpt2_count_as_linear(tmp_path: Path, tokenizer: Any) -> None:
    assert problems(profile_of(saved(tmp_path, "gpt2", tokenizer), ("c_attn",)), tmp_path, "generator", "sft") == {}


@pytest.mark.parametrize("setting", ["generator", "sft", "reward"])
def test_a_layer_that_the_model_lacks_is_named_though_others_are_there(
    tmp_path: Path, tiny_model_folder: Path, setting: str
) -> None:
    wrong = {setting: {"target_modules": ["q_proj", "c_attn"]}}
    found = problems(profile_of(tiny_model_folder, ("q_proj",), **wrong), tmp_path, setting)
    assert f"{setting}.target_modules names c_attn" in found[setting]


@pytest.mark.parametrize("method", ["rloo", "grpo", "dpo"])
def test_the_policy_is_tried_by_its_own_method(tmp_path: Path, tiny_model_folder: Path, method: str) -> None:
    sound, short = ({"rlhf": {"method": method, "max_prompt_tokens": tokens}} for tokens in (96, 3))
    assert problems(profile_of(tiny_model_folder, ("q_proj",), **sound), tmp_path, "rlhf") == {}
    found = problems(profile_of(tiny_model_folder, ("q_proj",), **short), tmp_path, "rlhf")
    assert "raise max_prompt_tokens" in found["rlhf"]


TEMPLATES = {
    "indexes parts": ("{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}", "as a list of parts"),
    "loops over parts": (
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
        "parts",
    ),
    "does not parse": ("{% for m in messages %}{{ m['content'] }}", "TemplateSyntaxError"),
    "refuses": ("{{ raise_exception('never') }}", "never"),
    "fails": ("{{ 1 + messages[0]['content'] }}", "TypeError"),
    "prints twice": (CHAT_TEMPLATE + CHAT_TEMPLATE, "as it is and once"),
    "changes the text": ("{% for m in messages %}{{ m['content']|upper }}{% endfor %}", "as it is and once"),
    "prints nothing": ("", "as it is and once"),
}


@pytest.mark.parametrize("case", list(TEMPLATES))
def test_a_chat_template_that_cannot_be_used_is_found_by_each_stage_that_uses_it(
    tmp_path: Path, tokenizer: Any, case: str
) -> None:
    tokenizer.chat_template, words = TEMPLATES[case]
    model = saved(tmp_path, "not finite", tokenizer)  # its weights are looked at after its template
    for setting in ("generator", "sampling", "annotation", "sft", "reward", "rlhf"):
        profile = profile_of(model, ("q_proj",), sampling={"prompt": "user_turn"})
        (said,) = problems(profile, tmp_path, setting).values()
        assert words in said, (setting, said)
        assert "choose another model" in said


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}[{{ messages[0]['content'] }}]",
        "{% if messages[0]['role'] == 'system' %}{{ 1 + messages }}{% endif %}[{{ messages[0]['content'] }}]",
        "{{ messages[0]['content'] }}",
        None,
    ],
    ids=["refuses a system message", "fails on a system message", "prints the text alone", "no template"],
)
def test_other_templates_can_be_used(tmp_path: Path, tiny_model_folder: Path, tokenizer: Any, template: Any) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_model_folder).save_pretrained(tmp_path)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    profile = profile_of(tmp_path, ("q_proj",))
    assert problems(profile, tmp_path, "generator", "sampling", "annotation", "sft") == {}


def test_a_tokenizer_without_an_end_token_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    tokenizer.eos_token = tokenizer.pad_token = None
    model = saved(tmp_path, "not finite", tokenizer)
    assert "no eos token" in problems(profile_of(model, ("q_proj",)), tmp_path, "sampling")["sampling"]


def counting(setting: str, made: list[str], **fields: Any) -> PublicCheck:
    return PublicCheck(setting, {"sft_model"}, lambda: made.append(setting), **fields)


def test_only_what_the_run_will_make_is_checked_and_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public_checks, "_passed", set())
    made: list[str] = []
    checks = [counting("settled", made, decided_by="settings"), counting("disk", made)]
    require_public(checks, {"rlhf_model"})
    assert made == []
    for _ in range(2):
        require_public(checks, {"sft_model", "rlhf_model"})
    assert made == ["settled", "disk", "disk"]
    require_public([counting("settled", made, decided_by="other settings")], {"sft_model"})
    assert made[-1] == "settled"


@pytest.mark.parametrize(
    "error", [RuntimeError("wrong shape\nmore"), KeyError("llama9"), ImportError("no sentencepiece")]
)
def test_whatever_a_library_raises_becomes_a_refusal_in_one_line(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(NotReady, match=rf"^sft cannot be used .*{type(error).__name__}.*; choose another") as refusal:
        require_public([PublicCheck("sft", {"sft_model"}, fail)], {"sft_model"})
    assert "\n" not in str(refusal.value)


def test_what_several_stages_say_of_a_model_is_said_once_and_what_needs_it_is_passed_over() -> None:
    def unfit(message: str) -> Callable[[], None]:
        def fail() -> None:
            raise ValueError(message)

        return fail

    made: list[str] = []
    checks = [
        PublicCheck("language_model", set(), unfit("is not there")),
        counting("sft", made, needs=("language_model",)),
        PublicCheck("reward", set(), unfit("is not there")),
        PublicCheck("rlhf", set(), unfit("is short")),
    ]
    assert [problem.field for problem in found_by(checks)] == ["language_model", "rlhf"]
    assert made == []


def test_a_data_folder_without_room_or_leave_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=2**20))
    profile = profile_of(Path("no model"), ("q_proj",))
    assert "there are 1 MiB left" in problems(profile, tmp_path / "not yet there", "home")["home"]
    (tmp_path / "file").touch()
    assert "cannot be written to" in problems(profile, tmp_path / "file" / "home", "home")["home"]
