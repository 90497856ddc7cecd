"""Rooms, the connections in them, and the one module that talks to the relay (`media`)."""
