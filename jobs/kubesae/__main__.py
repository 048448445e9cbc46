"""`python -m kubesae`."""

from kubesae.cli.main import main

if __name__ == "__main__":
    main()
