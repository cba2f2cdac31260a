"""`python -m consumer`. The signals are taken first: all else that is imported takes seconds."""

from consumer.runtime.stop import StopRequest


def main() -> None:
    """Run the command line."""
    stop = StopRequest()
    stop.listen()
    from consumer.command_line import app

    app(prog_name="python -m consumer", obj=stop)


if __name__ == "__main__":
    main()
