"""Drawing texts by public seeds for later steps: more samples of the generator, and the baseline of epsilon zero.

The baseline samples user turns from the public base model by its open user turn, without any private training (Xu et
al., "Magpie", arXiv 2406.08464). Private training has to beat it to have earned its budget.
"""

from collections.abc import Callable

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dp_assets.artifacts import Adapter
from dp_assets.generation.adapters import attach_adapter
from dp_assets.generation.prompts import GeneratorPrompt, generator_prompt_ids
from dp_assets.generation.sampling import deduplicate, sample_instructions
from dp_assets.progress import progress

LoadModel = Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


def generator_sampler(
    load_model: LoadModel,
    adapter: Adapter,
    *,
    prompt: GeneratorPrompt,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
) -> Callable[[int, int], list[str]]:
    """A function of (number of samples, public seed) that draws texts from the generator, loaded at the first call."""
    loaded: list[tuple[PreTrainedModel, PreTrainedTokenizerBase]] = []

    def draw(num_samples: int, seed: int) -> list[str]:
        if not loaded:
            base, tokenizer = load_model()
            loaded.append((attach_adapter(base, adapter), tokenizer))
        model, tokenizer = loaded[0]
        with progress("topping up short bins", num_samples, "samples") as advance:
            drawn = sample_instructions(
                model,
                tokenizer,
                prompt_ids=generator_prompt_ids(tokenizer, prompt=prompt),
                num_samples=num_samples,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                batch_size=batch_size,
                seed=seed,
                advance=advance,
            )
        return drawn["text"].to_list()

    return draw


def sample_baseline(
    load_model: LoadModel,
    *,
    prompt: GeneratorPrompt,
    num_samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
) -> list[str]:
    """Distinct texts of the base model alone, drawn as the pool is drawn from the generator."""
    model, tokenizer = load_model()
    with progress("sampling the baseline of epsilon zero", num_samples, "samples") as advance:
        drawn = sample_instructions(
            model,
            tokenizer,
            prompt_ids=generator_prompt_ids(tokenizer, prompt=prompt),
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            batch_size=batch_size,
            seed=seed,
            advance=advance,
        )
    return deduplicate(drawn)["text"].to_list()
