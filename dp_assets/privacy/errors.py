"""The base of every error that may be shown outside the private zone. It is the allow-list: there is no other."""


class PublicError(Exception):
    """An error whose message is public: it depends on configuration and public facts, never on a row.

    To derive a class from it is to state this for every message that the class is ever made with. A step that reads
    private rows lets these errors through as they are and replaces all others by one constant message.

    - Facts that may be said: settings, paths and names of columns, the model and the machine, the ledger's entries,
      released artifacts, and fixed public texts that a check tried.
    - Never said: a value, a length, a count or the absence of private rows, or what a library said while it read them.
    - A class that would be raised with both is two classes; the one with private messages does not derive from this.
    """
