"""A generation timed by piece and by launch: `arcmtp profile`."""
