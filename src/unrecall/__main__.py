"""`python -m unrecall`, so that launchers such as `accelerate launch -m unrecall` find the command line."""

from unrecall.cli.app import main

if __name__ == "__main__":
    main()
