"""`arcmtp inspect`: what a file is, and which card runs it how, from its header alone."""
