"""DP-SGD for LoRA adapters: clipped per-unit gradients, the training loop, and the evidence about both."""
