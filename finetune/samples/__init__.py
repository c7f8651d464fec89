"""From documents to packs of encoded samples."""
