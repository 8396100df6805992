"""The command line: ``main.py`` and one file per verb, imported only when its verb is used."""
