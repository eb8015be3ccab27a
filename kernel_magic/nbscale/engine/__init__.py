"""The engine: bounded, ordered dispatch of inputs to workers; knows nothing of notebooks."""
