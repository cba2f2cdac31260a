"""The process itself: logs, watchdog, limits of the machine."""
