"""The instruction generator: prompts, adapters, private training, decoding and sampling."""
