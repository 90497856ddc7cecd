"""The project's own clients: broadcast a file, listen to a room, demonstrate both.

They speak the wire of ``docs/protocol.md`` with aiohttp and NumPy alone and share no code with
the relay, so that they check it from outside.
"""
