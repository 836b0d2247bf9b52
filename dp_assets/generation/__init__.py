"""The instruction generator (mechanism 1): prompts, adapters, private training, decoding and sampling."""
