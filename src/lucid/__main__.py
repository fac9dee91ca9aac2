"""`python -m lucid`: the command `lucid`."""

from lucid.cli import main

if __name__ == "__main__":
    main()
