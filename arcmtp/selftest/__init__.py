"""`arcmtp selftest`: whether a device computes what it should, and how fast."""
