"""The wire contract of docs/protocol.md: messages, codes and reasons."""
