"""`python -m tfq_sv` is `tfq-sv`."""

from tfq_sv import cli

if __name__ == "__main__":
    cli.run()
