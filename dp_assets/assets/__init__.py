"""One file an asset, named after its key. A body reads as its stage: inputs, one or two calls, the value."""
