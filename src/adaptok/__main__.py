"""`python -m adaptok`."""

from adaptok.cli.main import run

if __name__ == "__main__":
    run()
