"""`python -m roomserver` is the `roomserver` command."""

from roomserver.cli import main

if __name__ == "__main__":
    main()
