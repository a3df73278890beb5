"""`python -m geobind`, which is also what `accelerate launch -m geobind` runs."""

from geobind.cli import main

if __name__ == "__main__":
    main()
