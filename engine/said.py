"""Tell which of a network's facts are told by its metadata, and by whom."""

from .backends.base import NetworkFacts
from .settings import Settings
from .sources.lengths import pixel_text


def said_notes(facts: NetworkFacts, settings: Settings) -> list[str]:
    """Return what is taken from the metadata, besides the normalisation, which says it itself."""
    said = dict(facts.origins)
    notes = []
    if "class_names" in said:
        notes.append(f"classes {', '.join(facts.class_names)} ({facts.says('class_names')})")
    if facts.pixel_size and "pixel_size" in said:
        notes.append(
            f"trained on pixels of {pixel_text(facts.pixel_size)} ({facts.says('pixel_size')})"
        )
    if "activation" in said and settings.activation in (None, "auto"):
        kind = "no activation" if facts.activation == "none" else f"{facts.activation}"
        notes.append(f"{kind} turns the output into probabilities ({facts.says('activation')})")
    if "threshold" in said and settings.threshold is None:
        notes.append(f"threshold {facts.threshold:g} ({facts.says('threshold')})")
    return [*notes, *facts.remarks]
