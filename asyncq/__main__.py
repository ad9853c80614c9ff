"""``python -m asyncq``."""

from asyncq.cli import main

main(prog_name="asyncq")
