"""The wire contract of docs/protocol.md: messages, codes and reasons.

`client` holds what clients send, `server` what they receive, `codes` the enumerations, `codec`
the JSON. No module here knows of rooms, sockets or the relay.
"""
