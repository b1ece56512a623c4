"""A generation timed by launch list and by launch: `arcmtp profile`."""
