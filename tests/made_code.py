"""Files that have nothing in common but the language, for tests of whole corpora."""

import random

_SYLLABLES = "ba ce di fo gu ha je ki lo mu na pe qui ra se ti vo wu xa ye zi".split()
_PYTHON = (
    "    {0} = {1}({2}, {3})\n",
    "    if {0} > {1}:\n        return {2}\n",
    "    for {0} in {1}.{2}:\n        {3}.append({0})\n",
    "    while {0}:\n        {0} = {1}[{2}]\n",
    "    {0} = [{1} for {1} in {2} if {1} != {3}]\n",
    "    try:\n        {0}.{1}()\n    except {2}:\n        {3} += 1\n",
    "    with {0}({1}) as {2}:\n        {2}.{3}({0}, {1})\n",
    '    {0}["{1}"] = {2} or {3}\n',
    "    assert {0} is not {1}, {2}\n",
    "    {0}, {1} = {2}, -{3}\n",
    "    raise {0}({1} + {2} * {3})\n",
    "    del {0}[{1}:{2}]\n",
)
_JAVASCRIPT = (
    "  const {0} = {1}({2}, {3});\n",
    "  if ({0} > {1}) {{\n    return {2};\n  }}\n",
    "  for (const {0} of {1}.{2}) {{\n    {3}.push({0});\n  }}\n",
    "  while ({0}) {{\n    {0} = {1}[{2}];\n  }}\n",
    "  {0} = {1}.map(({2}) => {2} - {3});\n",
    "  try {{\n    {0}.{1}();\n  }} catch ({2}) {{\n    {3} += 1;\n  }}\n",
    '  {0}["{1}"] = {2} ?? {3};\n',
    "  switch ({0}) {{\n    case {1}:\n      {2} = {3};\n  }}\n",
    "  throw new {0}({1} + {2} * {3});\n",
    "  delete {0}[{1}];\n",
)


def make_code(number: int, functions: int = 12, names: int | None = None) -> bytes:
    """Return a Python file of its own for each number, about 100 bytes per function.

    Files whose `names` are one number use the same names, as those of one repository do.
    """
    return _make(number, functions, names, _PYTHON, "def {}({}):\n", "\n\n")


def make_javascript(number: int, functions: int = 12) -> bytes:
    """Return a JavaScript file of its own for each number."""
    return _make(number, functions, None, _JAVASCRIPT, "function {}({}) {{\n", "}\n\n")


def _make(
    number: int, functions: int, names: int | None, statements: tuple[str, ...], head: str, end: str
) -> bytes:
    rng = random.Random(number)
    named = random.Random(f"names {number if names is None else names}")
    words = ["".join(named.choices(_SYLLABLES, k=3)) for _ in range(20)]
    parts = []
    for place in range(functions):
        arguments = ", ".join(rng.sample(words, rng.randint(0, 3)))
        parts.append(head.format(f"{rng.choice(words)}_{place}", arguments))
        for _ in range(rng.randint(1, 4)):
            parts.append(rng.choice(statements).format(*rng.choices(words, k=4)))
        parts.append(end)
    return "".join(parts).encode()
