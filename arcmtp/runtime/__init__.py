"""Environment, devices, card profiles, device memory, kernels and launch lists: what operators run on."""
