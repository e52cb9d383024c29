"""Learning: data, module, callbacks, checkpoints, and the pretraining of the embedded model."""
