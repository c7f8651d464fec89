"""Licences: what a head or a licence file says, where it holds, and what a recipe allows."""

import pytest

from finetune.corpus.entries import Reason
from finetune.corpus.licences import (
    check_licence,
    find_licence,
    is_licence_file,
    licences_of,
)
from finetune.recipe.filters import Filters

GPL_2 = b"""/*
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU General Public License as published by
 * the Free Software Foundation; either version 2 of the License%s.
 */
"""
MIT = b"""MIT License

Copyright (c) 2024 Acme

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files
"""
APACHE = b"""# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
"""
BSD = b"""Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
"""


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        (b"# SPDX-License-Identifier: MIT\n", "MIT"),
        (b"/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */\n",
         "GPL-2.0-only WITH Linux-syscall-note"),
        (b"<!-- SPDX-License-Identifier: (MIT OR  Apache-2.0) -->\n", "(MIT OR Apache-2.0)"),
        (b"// Copyright 2020\n// SPDX-License-Identifier: BSL-1.0\r\n", "BSL-1.0"),
        (MIT, "MIT"),
        (APACHE, "Apache-2.0"),
        (b"-- Licensed under the Apache\n-- License, Version 2.0\n", "Apache-2.0"),
        (b"// http://www.apache.org/licenses/LICENSE-2.0\n", "Apache-2.0"),
        (GPL_2 % b", or\n * (at your option) any later version", "GPL-2.0-or-later"),
        (GPL_2 % b"", "GPL-2.0-only"),
        (b"# SPDX-License-Identifier: NOASSERTION\n", ""),
        (b"     GNU GENERAL PUBLIC LICENSE\n        Version 3, 29 June 2007\n", "GPL-3.0-only"),
        (b"GNU LESSER GENERAL PUBLIC LICENSE\n Version 2.1, February 1999\n", "LGPL-2.1-only"),
        (b"GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007\n", "AGPL-3.0-only"),
        (b"under the terms of version 2 of the GNU General Public License\n", "GPL-2.0-only"),
        (b"// This Source Code Form is subject to the terms of the Mozilla Public\n"
         b"// License, v. 2.0.\n", "MPL-2.0"),
        (b"// Distributed under the Boost Software License, Version 1.0.\n", "BSL-1.0"),
        (BSD, "BSD-2-Clause"),
        (BSD + b"3. Neither the name of the copyright holder nor\n", "BSD-3-Clause"),
        (b"Permission to use, copy, modify, and/or distribute this software\n", "ISC"),
        (b"This software is provided 'as-is', without any express or implied warranty.\n", "Zlib"),
        (b"This is free and unencumbered software released into the public domain.\n", "Unlicense"),
        (b"Copyright (c) Acme. All rights reserved.\n", ""),
        (b"def is_licensed(user):\n    return 'GPL' in user.licences\n", ""),
        (b"x = 1\n" * 1_000 + b"# SPDX-License-Identifier: MIT\n", ""),
        (b"", ""),
    ],
)  # fmt: skip
def test_licences_are_told_by_what_they_say(text, licence):
    assert find_licence(text) == licence


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("LICENSE", True), ("LICENCE.txt", True), ("lib/COPYING", True), ("COPYING.LESSER", True),
        ("LICENSE-APACHE", True), ("UNLICENSE", True), ("MIT-LICENSE", True), ("license.md", True),
        ("LICENSES/MIT.txt", False), ("LICENSES/LICENSE", False), ("license.py", False),
        ("licenses.rs", False), ("src/license_check", False), ("NOTICE", False),
    ],
)  # fmt: skip
def test_licence_files_are_told_by_their_names(path, expected):
    assert is_licence_file(path) is expected


def test_the_nearest_licence_file_above_a_file_holds():
    files = [
        ("a", "LICENSE", "MIT"),
        ("a", "main.py", ""),
        ("a", "own.py", "BSL-1.0"),
        ("a", "lib/x/LICENSE-MIT", "MIT"),
        ("a", "lib/x/LICENSE-APACHE", "Apache-2.0"),
        ("a", "lib/x/deep/er/b.py", ""),
        ("a", "lib/y.py", ""),
        ("b", "main.py", ""),
        ("b", "sub/COPYING", "GPL-3.0-only"),
        ("b", "sub/COPYING.LESSER", "LGPL-3.0-only"),
        ("b", "sub/c.py", ""),
        ("c", "LICENSE", ""),
        ("c", "main.py", ""),
    ]

    found = licences_of(iter(files))

    assert {place: found[place] for place in found if place[1].endswith(".py")} == {
        ("a", "main.py"): "MIT",
        ("a", "own.py"): "BSL-1.0",
        ("a", "lib/x/deep/er/b.py"): "Apache-2.0 OR MIT",
        ("a", "lib/y.py"): "MIT",
        ("b", "main.py"): "",
        ("b", "sub/c.py"): "LGPL-3.0-only",
        ("c", "main.py"): "",
    }
    assert len(found) == len(files)


@pytest.mark.parametrize(
    ("licence", "allowed", "denied", "is_kept"),
    [
        ("MIT", (), (), True),
        ("MIT", ("MIT",), (), True),
        ("mit", ("MIT",), (), True),
        ("BSD-3-Clause", ("MIT", "BSD-*"), (), True),
        ("GPL-3.0-only", ("MIT", "BSD-*"), (), False),
        ("GPL-3.0-only", (), ("GPL-*",), False),
        ("LGPL-3.0-only", (), ("GPL-*",), True),
        ("MIT OR GPL-2.0-only", (), ("GPL-*",), True),
        ("MIT AND GPL-2.0-only", (), ("GPL-*",), False),
        ("MIT AND (Zlib OR GPL-2.0-only)", (), ("GPL-*",), True),
        ("(MIT AND GPL-2.0-only) OR GPL-3.0-only", (), ("GPL-*",), False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", (), ("GPL-*",), False),
        ("GPL-2.0-only WITH Classpath-exception-2.0 OR MIT", (), ("GPL-*",), True),
        ("MIT", ("MIT",), ("*",), False),
    ],
)
def test_expressions_are_held_to_the_lists(licence, allowed, denied, is_kept):
    filters = Filters(licences_allowed=allowed, licences_denied=denied)

    reason = None if is_kept else Reason(name="licence", detail=f"{licence} is not allowed")
    assert check_licence(licence, filters) == reason


@pytest.mark.parametrize("licence", ["", "MIT OR", "(MIT", "AND", "MIT Apache-2.0", "(" * 5_000])
def test_what_is_unknown_is_dropped_where_it_is_asked_for(licence):
    filters = Filters(licences_allowed=("MIT",), unknown_licences=True)

    assert check_licence(licence, filters) == Reason(name="licence", detail="unknown")
    assert check_licence(licence, Filters(licences_allowed=("MIT",))) is None
