"""`python -m adaptok`."""

from adaptok.commands.main import main

if __name__ == "__main__":
    main()
