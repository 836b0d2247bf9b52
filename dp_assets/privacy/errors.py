"""The base class of errors that may be shown outside the private zone. It is the only allow-list of such errors."""


class PublicError(Exception):
    """An error whose message is public: it depends on configuration and public facts, never on a row.

    Deriving a class from `PublicError` asserts this for every message that the class is ever raised with. A step that
    reads private rows passes these errors on unchanged and replaces all others by one constant message.

    - A message may state settings, paths and names of columns, the model and the machine, the ledger's entries,
      released artifacts, and fixed public texts that a check tried.
    - A message never states a value, a length, a count or the absence of private rows, nor what a library reported
      while it read them.
    - A class that would be raised with both kinds of message is split in two. The class with private messages does not
      derive from `PublicError`.
    """
