"""What a machine and a model do: `arcmtp doctor`."""
