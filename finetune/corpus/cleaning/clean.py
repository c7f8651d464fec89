"""What is taken out of a file that is kept: licence headers, commented-out code, lint."""

from dataclasses import replace

from fim import Document
from finetune.corpus.cleaning.commented import remove_commented_code
from finetune.corpus.cleaning.headers import remove_licence
from finetune.corpus.rules.python_checks import fix_python, format_python
from finetune.recipe.filters import Filters


def clean_document(document: Document, filters: Filters, seed: int) -> Document:
    """Return the document as it is learned from: a function of the document and the seed alone."""
    text = document.text
    if document.language == "python" and filters.ruff_fix:
        text = fix_python(text, document.path)
    if document.language == "python" and filters.ruff_format:
        text = format_python(text, document.path)
    if filters.commented_code_rate:  # looks at the tree that the rules had made of the same text
        rate = filters.commented_code_rate
        text = remove_commented_code(text, document.language, rate, seed)
    if filters.licence_headers:
        text = remove_licence(text, document.language)
    return document if text == document.text else replace(document, text=text)
