"""One code for each spelling of a language: ISO 639-1 codes, language tags, three-letter codes and English names."""

import re

import polars as pl

NAMES = """
af afr afrikaans, sq sqi alb albanian, ar ara arabic, hy hye arm armenian, az aze azerbaijani, eu eus baq basque,
be bel belarusian, bn ben bengali, bs bos bosnian, bg bul bulgarian, my mya bur burmese, ca cat catalan,
zh zho chi chinese mandarin, hr hrv croatian, cs ces cze czech, da dan danish, nl nld dut dutch, en eng english,
eo epo esperanto, et est estonian, fi fin finnish, fr fra fre french, gl glg galician, ka kat geo georgian,
de deu ger german, el ell gre greek, gu guj gujarati, he heb hebrew, hi hin hindi, hu hun hungarian,
is isl ice icelandic, id ind indonesian, ga gle irish, it ita italian, ja jpn japanese, kn kan kannada, kk kaz kazakh,
km khm khmer, ko kor korean, la lat latin, lv lav latvian, lt lit lithuanian, mk mkd mac macedonian,
ms msa may malay, ml mal malayalam, mr mar marathi, mn mon mongolian, ne nep nepali, no nor norwegian,
fa fas per persian farsi, pl pol polish, pt por portuguese, pa pan punjabi, ro ron rum romanian, ru rus russian,
sr srp serbian, si sin sinhala, sk slk slo slovak, sl slv slovenian, so som somali, es spa spanish, sw swa swahili,
sv swe swedish, tl tgl tagalog, ta tam tamil, te tel telugu, th tha thai, tr tur turkish, uk ukr ukrainian, ur urd urdu,
uz uzb uzbek, vi vie vietnamese, cy cym wel welsh, yi yid yiddish, yo yor yoruba, zu zul zulu
"""
LANGUAGE_CODES = {name: names.split()[0] for names in NAMES.split(",") for name in names.split()}
"""Keys are lower case. A language that is missing here keeps its own name."""

TAG = re.compile(r"([a-z]{2,3})[-_].*")
REGION = re.compile(r"\s*\(.*\)$")


def language_of(spelling: str) -> str | None:
    """Return the code of a language such as `en`, `EN`, `en-US`, `eng` or `English (US)`; None if it is blank."""
    name = REGION.sub("", spelling.strip().casefold())
    tag = TAG.fullmatch(name)
    return LANGUAGE_CODES.get(primary := tag[1] if tag else name, primary) or None


def language_code(language: pl.Expr) -> pl.Expr:
    """Apply `language_of` to each value."""

    def codes(spellings: pl.Series) -> pl.Series:
        known = {spelling: language_of(spelling) for spelling in spellings.unique() if spelling is not None}
        return pl.Series(spellings.name, [known.get(spelling) for spelling in spellings], dtype=pl.String)

    return language.map_batches(codes, return_dtype=pl.String(), is_elementwise=True)
