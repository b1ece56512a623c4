"""The model: hyperparameters, tensors and weights, the network as launches, tokenizer and chat template."""
