"""The command `arcmtp`. It is no part of the package, whose import takes a while and can be interrupted too."""


def run() -> int:
    """`arcmtp.cli.main`; the exit status."""
    try:
        from arcmtp.cli import main

        return main()
    except KeyboardInterrupt:
        return 130
