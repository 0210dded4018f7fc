"""`python -m adaptok`."""

from adaptok.commands.main import run

if __name__ == "__main__":
    run()
