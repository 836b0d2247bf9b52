"""The preview of a profile's corpus, read inside a private step in the same way as `real_instructions` reads it."""

from functools import partial
from typing import Any

from dp_assets.corpus.prepare import Step, drop_erased
from dp_assets.corpus.preview import preview
from dp_assets.corpus.schemas import SOURCE_ROWS
from dp_assets.corpus.sources import parts_of
from dp_assets.corpus.text_files import BrokenDocument
from dp_assets.pipeline.corpus import is_registered, preparation_of, snapshot_and_erased, source_of, terms_of
from dp_assets.settings.profile import Profile
from resources.ledger.ledger_resource import Ledger
from resources.private.private_step import private_step
from resources.storage.scratch import Scratch


def preview_of(ledger: Ledger, profile: Profile, *, on_terminal: bool = False) -> dict[str, Any]:
    """Return what is read of the source and what the preparation would make of it. Nothing of it is stored.

    The result is private: the caller may show it to the owner only. `on_terminal` says that only the owner sees what is
    raised, too.

    Raises:
      SourceError: the source cannot be read as configured.
      CohortError: the cohorts do not go with the privacy unit.
      BrokenDocument: `on_terminal`, and a JSON document cannot be read to its end; the message is private.
      PrivateStepFailed: reading failed in a way that may depend on rows.
    """
    source, terms = source_of(profile), terms_of(profile, declared_public=False)
    preparation, first = preparation_of(profile, ledger.key), _erased(ledger, profile)
    broken = ""
    with Scratch(ledger.private_root) as scratch, private_step(ledger.private_root):
        try:
            shown = preview(
                parts_of(source, scratch.folder),
                preparation,
                columns=source.columns or {name: name for name in SOURCE_ROWS},
                cohorts=terms.cohorts,
                folder=scratch.folder,
                first=first,
            )
        except BrokenDocument as error:
            if not on_terminal:
                raise
            broken = str(error)
    scratch.remove()
    if broken:
        raise BrokenDocument(broken)
    return shown


def _erased(ledger: Ledger, profile: Profile) -> list[Step]:
    """Return the step that drops erased units; no step if the corpus is not registered or has none."""
    if not is_registered(ledger, profile):
        return []
    _, erased = snapshot_and_erased(ledger, profile)
    return [Step(partial(drop_erased, erased=erased, key=ledger.key), "were erased")] if erased else []
