"""Text that a terminal can be shown, whatever file it came from."""


def printable(text: str) -> str:
    """Show what a terminal would act on by its code: texts quote files that may hold anything."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
