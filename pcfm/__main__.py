"""`python -m pcfm` is `pcfm`."""

from pcfm.cli import entry

if __name__ == "__main__":
    entry()
