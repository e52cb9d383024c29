"""`python -m tuning`: the same program as the command `tuning`."""

from tuning.cli.main import main

if __name__ == "__main__":
    main()
