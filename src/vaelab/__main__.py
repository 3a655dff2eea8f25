"""`python -m vaelab`: the command line."""

from vaelab.cli import main

if __name__ == "__main__":
    main()
