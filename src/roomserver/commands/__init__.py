"""Commands of the `roomserver` command line; each module registers its own on the typer app."""
