"""The assets, one file each, named after its key. A body is its stage: inputs, one or two calls, the value."""
