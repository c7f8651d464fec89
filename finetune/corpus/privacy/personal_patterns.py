"""Where personal data may stand: places only, `personal` judges what is there."""

import re

COMPANY = re.compile(
    rb"(?i)\b(?:"
    rb"inc|ltd|llc|llp|gmbh|ag|ab|sa|srl|bv|corp|co|company|corporation|"
    rb"incorporated|limited|foundation|fund|trustees|university|institute|college|"
    rb"school|laborator(?:y|ies)|labs|project|projects|authors|contributors|committers|"
    rb"developers|maintainers|team|group|community|consortium|association|society|"
    rb"software|systems|technologies|technology|networks|solutions|services|research|"
    rb"center|centre|committee|council|organi[sz]ation|agency|department|regents|"
    rb"affiliates|expert|core|oracle|google|microsoft|apple|ibm|intel|amazon|"
    rb"facebook|meta|mozilla|netflix|nvidia|red hat|adobe|twitter|unicode|apache|"
    rb"python|rust|node\.?js|free software|all rights|the|this|see|copyright|license|"
    rb"notice|holders?|individual|various|others|unknown|generated|automatically"
    rb")\b"
)
"""Words that no name of a person has."""
DOMAINS = frozenset((
    "agency app biz blog cloud com dev digital edu email engineering gov info int mil name net"
    " network online org page pro site software solutions studio systems team tech works world"
    " xyz ac ad ae af ag ai al am ao ar at au az ba bd be bg bh bn bo br by bz ca cc cd ch ci cl"
    " cm cn co cr cu cy cz de dk do dz ec ee eg es et eu fi fo fr ga ge gh gi gr gt hk hn hr ht"
    " hu id ie il im in io iq ir is it je jm jo jp ke kg kh kr kw kz la lb li lk lt lu lv ly ma"
    " mc md me mg mk ml mm mn mo mt mu mv mx my mz na ng ni nl no np nu nz om pa pe pg ph pk pl"
    " pr pt py qa re ro rs ru rw sa sd se sg si sk sn so st su sv sy sz th tj tk tm tn to tr tt"
    " tv tw tz ua ug uk us uy uz va ve vn ws za zm zw"
).split())  # fmt: skip
"""Last labels of domains that people have addresses under; `icon@2x.png` has none of them."""
_TAGS = (
    r"author|written by|contributed by|created by|modified by|maintained by|maintainer|developer"
    r"|signed-off-by|co-authored-by|reviewed-by|acked-by|tested-by|reported-by|suggested-by"
)
_IN_NAME = r"[^\x00-&(-,/:-@\[-^`{-\x7f]"
"""A letter of any language, a digit or one of `'-._`."""
PATTERNS = {
    "email": r"([\w.+-]{1,64}@[A-Za-z0-9-][A-Za-z0-9.-]{2,100})",
    "ipv4": r"((?:\d{1,3}\.){3}\d{1,3})",
    "ipv6": r"(?:^|[^0-9A-Za-z_:.])([0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7})",
    # RFC 3986 section 3.2.2, the host of a URL
    "url-host": r"(?i)\b[a-z][a-z0-9+.-]{1,20}://(?:[^\s/@\"'`<>]{0,120}@)?([a-z0-9][a-z0-9_.-]{0,200}"
    r"\.(?:internal|local|corp|lan|intranet))[._-]{0,3}(?:$|[^a-z0-9_.-])",
    "host": r"(?i)(?:^|[\s\"'`@=(,<>:|])((?:[a-z0-9_-]{1,63}\.){1,8}"
    r"(?:internal|local|corp|lan|intranet))(?:$|[\s\"'`:/,)<>?;|\\])",
    "tag": r"(?i)(?:^|[^\w.])[\\@]?(?:__)?(?:" + _TAGS + r")s?(?:__)?(?:\(s\))?[\"']?"
    r"(?:[ \t]{0,8}[:=,][ \t]{0,8}|[ \t]{1,8})[\[({\"']{0,3}([^\s:=\[({\"'][^\r\n]{2,200})",
    "copyright": r"(?i)(?:copyright|\(c\)|©|&copy;)[^\r\n]{0,24}?"
    r"(?:\d{4}[\d ,\t-]{0,60}|\(c\)|©|\bby\b)[ ,.\t]{1,8}(?:by[ \t:]{1,4})?"
    r"([A-Z][^\r\n]{2,120})",
    "todo": r"\b(?:TODO|FIXME|XXX|HACK|BUG|NOTE|REVIEW)\(([a-z][\w.-]{1,30})\)",
    "mailbox": rf"([A-Z]{_IN_NAME}{{1,30}}(?:[ ][A-Z]{_IN_NAME}{{0,30}}){{1,3}}) ?<[\w.+-]+@",
}


def make_rules() -> dict[str, list[dict]]:
    """Return the patterns as the scanner's rule file has them."""
    rows = PATTERNS.items()
    return {"rules": [{"id": k, "name": k, "pattern": p, "min_entropy": 0.0} for k, p in rows]}
